package planner_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/planner"
)

var strata = []string{"zone", "guest", "machine"}

func labelled(needs string) api.Template {
	return api.Template{Config: api.TemplateConfig{Labels: map[string]string{planner.Label: needs}}}
}

func TestChoose(t *testing.T) {
	noQEMU := planner.Host{Strata: strata, Lacks: map[string]*fault.Error{
		"guest": fault.Unablef("guests need QEMU, which is not installed").Help("apt install qemu-system-x86"), "machine": fault.Unablef("machines need QEMU")}}
	noKernel := planner.Host{Strata: strata, Lacks: map[string]*fault.Error{"guest": fault.Missingf("there is no kernel").At("kernel").Help("strata kernel add debian")}}
	full, zones, deep := planner.Host{Strata: strata}, planner.Host{Strata: strata[:1]}, planner.Host{Strata: []string{"zone", "machine"}}
	for name, c := range map[string]struct {
		spec api.Spec
		of   api.Template
		host planner.Host
		want string
		kind fault.Kind
		says string // commas separate what all must be there
	}{
		"nothing asked for is a zone":                        {host: full, want: "zone", says: "shallowest"},
		"needs that a zone serves":                           {spec: api.Spec{Needs: []string{"isolation", "own-init"}}, host: zones, want: "zone", says: "own-init"},
		"a zone by name":                                     {spec: api.Spec{Stratum: "zone"}, host: zones, want: "zone", says: "by name"},
		"a need that nothing here serves is refused by name": {spec: api.Spec{Needs: []string{"own-kernel"}}, host: zones, kind: fault.Unable, says: "own-kernel,leave the need out"},
		"a stratum that nothing here serves":                 {spec: api.Spec{Stratum: "guest"}, host: zones, kind: fault.Unable, says: "guest"},
		"an unknown need":                                    {spec: api.Spec{Needs: []string{"speed"}}, host: full, kind: fault.Invalid, says: "speed,native-speed"},
		"a need with a slip in it":                           {spec: api.Spec{Needs: []string{"own-kernal"}}, host: full, kind: fault.Invalid, says: "own-kernal,nearest: own-kernel"},
		"an unknown stratum":                                 {spec: api.Spec{Stratum: "cellar"}, host: full, kind: fault.Invalid, says: "cellar"},
		"a stratum too shallow for a need":                   {spec: api.Spec{Stratum: "zone", Needs: []string{"kernel-modules"}}, host: full, kind: fault.Invalid, says: "kernel-modules,too shallow,--force"},
		"a stratum too shallow, by force":                    {spec: api.Spec{Stratum: "zone", Needs: []string{"kernel-modules"}, Force: true}, host: full, want: "zone", says: "forced,kernel-modules"},
		"force without a stratum":                            {spec: api.Spec{Force: true}, host: full, kind: fault.Invalid, says: "force"},
		"the deepest need decides":                           {spec: api.Spec{Needs: []string{"own-kernel", "stock-hardware"}}, host: full, want: "machine", says: "stock-hardware"},
		"deeper than needed, by name":                        {spec: api.Spec{Stratum: "machine", Needs: []string{"isolation"}}, host: full, want: "machine", says: "by name"},
		"needs that contradict are both named":               {spec: api.Spec{Needs: []string{"density", "stock-hardware"}}, host: full, kind: fault.Invalid, says: "density,stock-hardware,contradict"},
		"needs contradict wherever they are asked for":       {spec: api.Spec{Needs: []string{"density", "stock-hardware"}}, host: zones, kind: fault.Invalid, says: "density,stock-hardware,contradict"},
		"what nothing serves yet contradicts all the same":   {spec: api.Spec{Needs: []string{"density", "foreign-os"}}, host: full, kind: fault.Invalid, says: "density,foreign-os,contradict"},
		"a stratum by name serves no needs that contradict":  {spec: api.Spec{Stratum: "guest", Needs: []string{"density", "foreign-os"}}, host: full, kind: fault.Invalid, says: "density,foreign-os,contradict"},
		"a template's need":                                  {of: labelled("isolation, untrusted-code"), host: full, want: "guest", says: "untrusted-code"},
		"a template's need is no word":                       {of: labelled("zzz"), host: full, kind: fault.Invalid, says: "zzz,template"},
		"a template's label is too long":                     {of: labelled(strings.Repeat("x", 5000)), host: full, kind: fault.Invalid, says: "longer"},
		"a kernel implies a need":                            {spec: api.Spec{Kernel: "mine"}, host: full, want: "guest", says: "own-kernel"},
		"a zone with a kernel names the option":              {spec: api.Spec{Stratum: "zone", Kernel: "mine"}, host: full, kind: fault.Invalid, says: "--kernel"},
		"without QEMU it is said what to install":            {spec: api.Spec{Needs: []string{"own-kernel"}}, host: noQEMU, kind: fault.Unable, says: "own-kernel,apt install"},
		"without QEMU a guest by name":                       {spec: api.Spec{Stratum: "guest"}, host: noQEMU, kind: fault.Unable, says: "apt install"},
		"without QEMU a zone is served":                      {spec: api.Spec{Needs: []string{"density"}}, host: noQEMU, want: "zone", says: "density"},
		"without a kernel it is said what to fetch":          {spec: api.Spec{Needs: []string{"own-kernel"}}, host: noKernel, kind: fault.Missing, says: "own-kernel,strata kernel add"},
		"nothing is fetched for a guest with a screen":       {spec: api.Spec{Stratum: "guest", Console: "graphical"}, host: noKernel, kind: fault.Invalid, says: "--console graphical,too shallow"},
		"nothing is fetched for what has volumes":            {spec: api.Spec{Needs: []string{"checkpoint"}, Volumes: []api.Volume{{Source: "/a", Target: "/b"}}}, host: noKernel, kind: fault.Invalid, says: "checkpoint,volumes"},
		"a deeper stratum stands in":                         {spec: api.Spec{Needs: []string{"own-kernel"}}, host: deep, want: "machine", says: "own-kernel,guest"},
		"speed below zones takes KVM":                        {spec: api.Spec{Needs: []string{"native-speed", "own-kernel"}}, host: full, kind: fault.Unable, says: "native-speed,KVM"},
		"a module implies a need":                            {spec: api.Spec{Modules: []string{"nf_tables"}}, host: full, want: "guest", says: "kernel-modules"},
		"a zone loads no modules":                            {spec: api.Spec{Stratum: "zone", Modules: []string{"nf_tables"}}, host: full, kind: fault.Invalid, says: "kernel-modules,--module,too shallow"},
		"a graphical console implies a need":                 {spec: api.Spec{Console: "graphical"}, host: full, want: "machine", says: "graphical-console"},
		"a guest has no screen":                              {spec: api.Spec{Stratum: "guest", Console: "graphical"}, host: full, kind: fault.Invalid, says: "--console graphical,too shallow"},
		"firmware implies a need":                            {spec: api.Spec{Firmware: "uefi"}, host: full, want: "machine", says: "own-firmware"},
		"a disk image implies a need":                        {spec: api.Spec{Foreign: &api.Foreign{DiskImage: "/d"}}, host: full, want: "machine", says: "foreign-os"},
		"a CD implies a need":                                {spec: api.Spec{Foreign: &api.Foreign{ISO: "/d"}}, host: full, want: "machine", says: "foreign-os"},
		"an option's need contradicts one that is asked for": {spec: api.Spec{Needs: []string{"fast-start"}, Firmware: "bios"}, host: full, kind: fault.Invalid, says: "fast-start,own-firmware,contradict"},
		"what is written down is a guest":                    {spec: api.Spec{Needs: []string{"checkpoint"}}, host: full, want: "guest", says: "checkpoint"},
		"a machine can be written down":                      {spec: api.Spec{Needs: []string{"checkpoint", "stock-hardware"}}, host: full, want: "machine", says: "stock-hardware"},
		"a zone cannot be written down":                      {spec: api.Spec{Stratum: "zone", Needs: []string{"checkpoint"}}, host: full, kind: fault.Invalid, says: "checkpoint,too shallow,guest"},
		"nothing with volumes can be written down":           {spec: api.Spec{Needs: []string{"checkpoint"}, Volumes: []api.Volume{{Source: "/a", Target: "/b"}}}, host: full, kind: fault.Invalid, says: "checkpoint,volumes,virtiofs"},
		"nothing that goes at its end can be written down":   {spec: api.Spec{Needs: []string{"checkpoint"}, AutoRemove: true}, host: full, kind: fault.Invalid, says: "checkpoint,--rm"},
		"no foreign system can be written down":              {spec: api.Spec{Needs: []string{"checkpoint"}, Foreign: &api.Foreign{ISO: "/d"}}, host: full, kind: fault.Invalid, says: "checkpoint,foreign"},
		"volumes by force":                                   {spec: api.Spec{Stratum: "guest", Force: true, Needs: []string{"checkpoint"}, Volumes: []api.Volume{{Source: "/a", Target: "/b"}}}, host: full, want: "guest", says: "forced,checkpoint"},
		"what nothing serves yet":                            {spec: api.Spec{Needs: []string{"live-migration"}}, host: full, kind: fault.Unable, says: "live-migration,leave the need out"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := planner.Choose(c.spec, c.of, c.host, nil)
			said := got.Reason
			if c.want == "" {
				if !fault.Is(err, c.kind) {
					t.Fatalf("got %+v, %v; want kind %s", got, err, c.kind)
				}
				said = words(err)
			} else if err != nil || got.Stratum != c.want {
				t.Fatalf("got %+v, %v; want %s", got, err, c.want)
			}
			for want := range strings.SplitSeq(c.says, ",") {
				if !strings.Contains(said, want) {
					t.Errorf("%q does not say %q", said, want)
				}
			}
		})
	}
}

// words is all that a fault says, its hints too.
func words(err error) string {
	text := ""
	for _, f := range fault.All(err) {
		text += f.Message + " [" + f.Hint + "] "
	}
	return text
}

// hosts are all that a choice can depend on: every set of strata with zones, each
// deeper one with and without what it takes, with and without KVM.
func hosts() []planner.Host {
	var all []planner.Host
	for bits := range 1 << 5 {
		h := planner.Host{Strata: []string{"zone"}, KVM: bits&1 != 0, Lacks: map[string]*fault.Error{}}
		for i, d := range strata[1:] {
			if bits>>(1+2*i)&1 != 0 {
				h.Strata = append(h.Strata, d)
			}
			if bits>>(2+2*i)&1 != 0 {
				h.Lacks[d] = fault.Unablef("%s needs QEMU", d).Help("install it")
			}
		}
		all = append(all, h)
	}
	return all
}

// specs are what a choice can depend on of a spec besides needs and stratum: each
// combination of what takes away a need's service and what implies one.
func specs() []api.Spec {
	var all []api.Spec
	for bits := range 1 << 3 {
		var s api.Spec
		if bits&1 != 0 {
			s.Volumes = []api.Volume{{Source: "/a", Target: "/b"}}
		}
		s.AutoRemove = bits&2 != 0
		if bits&4 != 0 {
			s.Modules = []string{"nf_tables"}
		}
		all = append(all, s)
	}
	return all
}

// kinds are needs of which each stands for all that are served alike.
func kinds() []api.Need {
	var all []api.Need
	seen := map[string]bool{}
	for _, n := range planner.Vocabulary() {
		if like := fmt.Sprint(n.Stratum, n.Deepest, n.Takes, n.Without, n.Later); !seen[like] {
			seen[like] = true
			all = append(all, n)
		}
	}
	return all
}

// subset are the members of all whose bits are set.
func subset(all []api.Need, bits int) []api.Need {
	var set []api.Need
	for i, n := range all {
		if bits>>i&1 != 0 {
			set = append(set, n)
		}
	}
	return set
}

// TestEverySetOfNeedsOnEveryHost holds for every set of the kinds of needs, each named
// stratum and none, each option that matters, on every host: never too shallow, never
// deeper than the host makes it, never on what the host has not, and a refusal names a
// need or the stratum, and a remedy.
func TestEverySetOfNeedsOnEveryHost(t *testing.T) {
	t.Parallel()
	rows, options := kinds(), specs()
	for _, h := range hosts() {
		for bits := range 1 << len(rows) {
			set := subset(rows, bits)
			for _, spec := range options {
				for _, spec.Stratum = range append([]string{""}, strata...) {
					if err := holds(set, spec, h); err != nil {
						t.Fatalf("%s, %+v, host %+v: %v", names(set), spec, h, err)
					}
				}
			}
		}
	}
}

// TestEverySetOfAllNeeds holds the same of each set of the whole vocabulary, half of them
// on a host that has everything and half on one without KVM.
func TestEverySetOfAllNeeds(t *testing.T) {
	t.Parallel()
	rows := planner.Vocabulary()
	for bits := range 1 << len(rows) {
		h := planner.Host{Strata: strata, KVM: (bits>>8^bits)&1 != 0}
		if err := holds(subset(rows, bits), api.Spec{}, h); err != nil {
			t.Fatalf("%s, host %+v: %v", names(subset(rows, bits)), h, err)
		}
	}
}

func names(set []api.Need) []string {
	all := []string{}
	for _, n := range set {
		all = append(all, n.Name)
	}
	return all
}

// serves is the vocabulary's word, read anew.
func serves(n api.Need, at string, spec api.Spec, h planner.Host) bool {
	d := slices.Index(strata, at)
	barred := n.Without != "" && (len(spec.Volumes) > 0 || spec.AutoRemove)
	return !n.Later && !barred && d >= slices.Index(strata, n.Stratum) && (n.Deepest == "" || d <= slices.Index(strata, n.Deepest)) && (n.Takes == "" || d == 0 || h.KVM)
}

func holds(set []api.Need, spec api.Spec, h planner.Host) error {
	spec.Needs = names(set)
	if len(spec.Modules) > 0 {
		set = append(slices.Clip(set), api.Need{Name: "kernel-modules", Stratum: "guest"})
	}
	here := func(at string) bool { return slices.Contains(h.Strata, at) && h.Lacks[at] == nil }
	fits := func(at string) bool {
		return here(at) && !slices.ContainsFunc(set, func(n api.Need) bool { return !serves(n, at, spec, h) })
	}
	want := spec.Stratum
	if want == "" {
		if i := slices.IndexFunc(strata, fits); i >= 0 {
			want = strata[i]
		}
	}
	got, err := planner.Choose(spec, api.Template{}, h, nil)
	if possible := want != "" && fits(want); possible != (err == nil) {
		return fmt.Errorf("got %q, %v; possible: %v (%s)", got.Stratum, err, possible, want)
	}
	if err == nil {
		if got.Stratum != want || len(got.Others) != 2 || got.Price != planner.NotMeasured || got.Reason == "" {
			return fmt.Errorf("got %+v; want %s", got, want)
		}
		return nil
	}
	mayName := append(names(set), spec.Stratum+" ")
	for _, f := range fault.All(err) {
		if f.Hint == "" || f.Field == "" && here(want) || !slices.ContainsFunc(mayName, func(n string) bool { return n != " " && strings.Contains(f.Message+" ", n) }) {
			return fmt.Errorf("the refusal %q [%s] at %q lacks a name or a remedy", f.Message, f.Hint, f.Field)
		}
	}
	if spec.Stratum == "" || !here(spec.Stratum) {
		return nil
	}
	spec.Force = true
	if forced, err := planner.Choose(spec, api.Template{}, h, nil); err != nil || forced.Stratum != spec.Stratum || len(forced.Unmet) == 0 {
		return fmt.Errorf("by force: %+v, %v", forced, err)
	}
	return nil
}

func TestWhatOthersLackAndAdd(t *testing.T) {
	got, err := planner.Choose(api.Spec{Needs: []string{"untrusted-code"}}, api.Template{}, planner.Host{Strata: strata}, map[string]string{"machine": "3 s to start"})
	if err != nil || got.Need != "untrusted-code" {
		t.Fatalf("%+v, %v", got, err)
	}
	if zone := got.Others[0]; zone.Deeper || zone.Lacks != "untrusted-code" {
		t.Errorf("zone: %+v", zone)
	}
	if machine := got.Others[1]; !machine.Deeper || !strings.Contains(machine.Adds, "stock-hardware") || machine.Price != "3 s to start" {
		t.Errorf("machine: %+v", machine)
	}
}

// costly is a choice with every need that a guest serves, from all three sources.
func costly() error {
	spec := api.Spec{Needs: []string{"isolation", "own-init", "untrusted-code", "kernel-modules", "own-kernel", "checkpoint"}, Kernel: "mine", Modules: []string{"tun"}}
	_, err := planner.Choose(spec, labelled("host-files,limits,own-address,density"), planner.Host{Strata: strata, KVM: true}, nil)
	return err
}

// TestAChoiceCostsLittle: it is to cost less than 1 ms. Of many tries the quickest is
// taken, since others may have the processor; what is allocated does not depend on that.
func TestAChoiceCostsLittle(t *testing.T) {
	least := time.Hour
	for range 200 {
		begun := time.Now()
		if err := costly(); err != nil {
			t.Fatal(err)
		}
		least = min(least, time.Since(begun))
	}
	allocations := testing.AllocsPerRun(100, func() { costly() })
	t.Logf("%v, %.0f allocations", least, allocations)
	if least > time.Millisecond || allocations > 500 {
		t.Errorf("a choice takes %v and %.0f allocations; want less than 1 ms and 500", least, allocations)
	}
}

// TestNearestNames: a name that is not known is refused with those that it may have been
// meant for, whoever says it.
func TestNearestNames(t *testing.T) {
	for wrong, want := range map[string]string{
		"kernel": "own-kernel", "own-kernal": "own-kernel", "Isolation": "isolation", "live-migratoin": "live-migration",
		"gui-console": "graphical-console", "checkpiont": "checkpoint", "foreign": "foreign-os", "densty": "density",
	} {
		_, asked := planner.Choose(api.Spec{Needs: []string{wrong}}, api.Template{}, planner.Host{Strata: strata}, nil)
		_, label := planner.Choose(api.Spec{}, labelled(wrong), planner.Host{Strata: strata}, nil)
		for field, err := range map[string]error{"needs": asked, "template": label} {
			if all := fault.All(err); !fault.Is(err, fault.Invalid) || all[0].Field != field || !strings.Contains(words(err), wrong) || !strings.Contains(words(err), want) {
				t.Errorf("%s from %s: %v, %q; want %s", wrong, field, err, words(err), want)
			}
		}
	}
	_, err := planner.Choose(api.Spec{Needs: []string{"zzzzzzzz"}}, api.Template{}, planner.Host{Strata: strata}, nil)
	for _, n := range planner.Known() {
		if !strings.Contains(words(err), n) {
			t.Errorf("where nothing is near, %q does not tell all: %s", words(err), n)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	for b.Loop() {
		if err := costly(); err != nil {
			b.Fatal(err)
		}
	}
}
