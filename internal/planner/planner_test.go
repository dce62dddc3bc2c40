package planner_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

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
		"a deeper stratum stands in":                         {spec: api.Spec{Needs: []string{"own-kernel"}}, host: deep, want: "machine", says: "own-kernel,guest"},
		"speed below zones takes KVM":                        {spec: api.Spec{Needs: []string{"native-speed", "own-kernel"}}, host: full, kind: fault.Unable, says: "native-speed,KVM"},
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

// TestEverySetOfNeedsOnEveryHost holds for each pair of needs and none, each named
// stratum and none, on every host: never too shallow, never deeper than the host
// makes it, never on what the host has not, and a refusal names a need or the
// stratum, and a remedy.
func TestEverySetOfNeedsOnEveryHost(t *testing.T) {
	rows := planner.Vocabulary()
	for _, h := range hosts() {
		for i := range rows {
			for j := i; j < len(rows); j++ {
				for _, named := range append([]string{""}, strata...) {
					set := []api.Need{rows[i], rows[j]}
					if err := holds(set, named, h); err != nil {
						t.Fatalf("%s and %s, stratum %q, host %+v: %v", rows[i].Name, rows[j].Name, named, h, err)
					}
				}
			}
		}
	}
}

func serves(n api.Need, at string, h planner.Host) bool {
	d := slices.Index(strata, at)
	return !n.Later && d >= slices.Index(strata, n.Stratum) && (n.Deepest == "" || d <= slices.Index(strata, n.Deepest)) && (n.Takes == "" || d == 0 || h.KVM)
}

func holds(set []api.Need, named string, h planner.Host) error {
	here := func(at string) bool { return slices.Contains(h.Strata, at) && h.Lacks[at] == nil }
	fits := func(at string) bool { return here(at) && serves(set[0], at, h) && serves(set[1], at, h) }
	want := named
	if named == "" {
		if i := slices.IndexFunc(strata, fits); i >= 0 {
			want = strata[i]
		}
	}
	got, err := planner.Choose(api.Spec{Stratum: named, Needs: []string{set[0].Name, set[1].Name}}, api.Template{}, h, nil)
	if possible := want != "" && fits(want); possible != (err == nil) {
		return fmt.Errorf("got %q, %v; possible: %v (%s)", got.Stratum, err, possible, want)
	}
	if err == nil {
		if got.Stratum != want || len(got.Others) != 2 || got.Price != planner.NotMeasured || got.Reason == "" {
			return fmt.Errorf("got %+v; want %s", got, want)
		}
		return nil
	}
	for _, f := range fault.All(err) {
		if f.Hint == "" || !slices.ContainsFunc([]string{set[0].Name, set[1].Name, named + " "}, func(n string) bool { return n != " " && strings.Contains(f.Message+" ", n) }) {
			return fmt.Errorf("the refusal %q [%s] lacks a name or a remedy", f.Message, f.Hint)
		}
	}
	forced, err := planner.Choose(api.Spec{Stratum: named, Force: true, Needs: []string{set[0].Name, set[1].Name}}, api.Template{}, h, nil)
	if named != "" && here(named) && (err != nil || forced.Stratum != named || len(forced.Unmet) == 0) {
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

func BenchmarkChoose(b *testing.B) {
	spec := api.Spec{Needs: []string{"isolation", "own-init", "untrusted-code", "kernel-modules"}}
	h := planner.Host{Strata: strata, KVM: true}
	for b.Loop() {
		if _, err := planner.Choose(spec, labelled("host-files,limits"), h, nil); err != nil {
			b.Fatal(err)
		}
	}
}
