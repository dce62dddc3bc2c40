package envfile

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

var rewrite = flag.Bool("rewrite", false, "write the golden file anew")

const shop = `project: shop
environments:
- {name: web, template: busybox, command: [serve], resources: {memory: 64M, disk: 10G}, depends-on: [db]}
- {name: db, template: busybox, restart: always}
`

// made is what applying text once leaves, all of it running.
func made(t *testing.T, text string) []api.Environment {
	f, err := Read([]byte(text), "strata.yaml", "/here")
	if err != nil {
		t.Fatal(err)
	}
	var envs []api.Environment
	for _, e := range f.Environments {
		envs = append(envs, api.Environment{ID: "id-" + e.Name, Name: e.Name, State: api.Running, Stratum: "zone", Template: e.Template, TemplateID: "sha256:aaaa", Spec: f.Spec(e), DiskSize: 10 << 30})
	}
	return envs
}

func TestPlans(t *testing.T) {
	replaced := func(from, to string) string { return strings.Replace(shop, from, to, 1) }
	cases := []struct {
		name, text string
		o          Options
		have       func([]api.Environment) []api.Environment
	}{
		{name: "nothing is there", text: shop, have: func([]api.Environment) []api.Environment { return nil }},
		{name: "all is as it should be", text: shop},
		{name: "limits and labels change live", text: replaced("memory: 64M, disk: 10G}", "memory: 1G, cpus: 0.5, disk: 10G}, labels: {a: b}")},
		{name: "a larger disk takes a restart", text: replaced("disk: 10G", "disk: 20G")},
		{name: "not where it can grow in use", text: replaced("disk: 10G", "disk: 20G"), have: growing},
		{name: "but beyond that", text: replaced("disk: 10G", "disk: 200G"), have: growing},
		{name: "a larger disk of what is stopped does not", text: replaced("disk: 10G", "disk: 20G"), have: stopped},
		{name: "no word of swap takes it back live", text: shop, have: func(all []api.Environment) []api.Environment {
			swap := unit.Size(5 * unit.MiB)
			all[0].Spec.Resources.Swap = &swap
			return all
		}},
		{name: "a guest's limit within its machine changes live", text: replaced("memory: 64M", "memory: 100M"), have: guest},
		{name: "one beyond it takes a restart", text: replaced("memory: 64M", "memory: 200M"), have: guest},
		{name: "and so do more processors than it has", text: replaced("memory: 64M", "memory: 64M, cpus: 1.5"), have: guest},
		{name: "huge pages of a guest take a restart", text: replaced("memory: 64M", "memory: 64M, hugepages: 2M"), have: guest},
		{name: "but not while it is stopped", text: replaced("memory: 64M", "memory: 64M, hugepages: 2M"), have: func(all []api.Environment) []api.Environment { return stopped(guest(all)) }},
		{name: "a larger limit goes ahead of a move", text: replaced("resources: {memory: 64M", "stratum: guest, resources: {memory: 4G")},
		{name: "huge pages are for where it moves to", text: replaced("resources: {memory: 64M", "stratum: guest, resources: {hugepages: 2M, memory: 64M")},
		{name: "the limit of a guest that moves away is too large for it", text: replaced("resources: {memory: 64M", "stratum: zone, resources: {memory: 4G"), have: guest},
		{name: "a larger disk of a foreign system means another one", text: alien("memory: 1G, disk: 20G"), have: foreign(t, 0)},
		{name: "more memory than its board has takes a restart", text: alien("memory: 2G, disk: 10G"), have: foreign(t, 0)},
		{name: "and so does less", text: alien("memory: 512M, disk: 10G"), have: foreign(t, 4*unit.GiB)},
		{name: "where there is room for it, it is plugged in", text: alien("memory: 2G, disk: 10G"), have: foreign(t, 4*unit.GiB)},
		{name: "what is suspended takes another share", text: replaced("memory: 64M", "memory: 64M, cpu-weight: 50"), have: suspended},
		{name: "a smaller disk means another one", text: replaced("disk: 10G", "disk: 5G")},
		{name: "another command means another environment", text: replaced("[serve]", "[serve, -v]")},
		{name: "variables are told by name", text: replaced("command: [serve]", "env: {KEY: secret}, command: [serve]")},
		{name: "a policy and a dependency change live", text: replaced("restart: always", "restart: on-failure:3")},
		{name: "what is stopped is started", text: shop, have: stopped},
		{name: "but not what never starts", text: replaced("restart: always}", "restart: always, start: always}\n- {name: idle, template: x, start: never}"), have: stopped},
		{name: "what has done its work is left", text: replaced("command: [serve]", "start: once"), have: stopped},
		{name: "what failed to start has done none", text: replaced("command: [serve]", "start: once"), have: func(all []api.Environment) []api.Environment {
			all = stopped(all)
			all[0].Started = nil
			return all
		}},
		{name: "without prune what is gone stays", text: "project: shop\nenvironments: [{name: new, template: x}]\n"},
		{name: "with prune it goes, in reverse order", text: "project: shop\nenvironments: [{name: new, template: x}]\n", o: Options{Prune: true}},
		{name: "a template that is newer is told", text: shop, o: Options{Templates: map[string]string{"busybox": "sha256:bbbb"}}},
		{name: "and taken with recreate", text: shop, o: Options{Recreate: true, Templates: map[string]string{"busybox": "sha256:bbbb"}}},
		{name: "another name of the template is none", text: strings.ReplaceAll(shop, "busybox", "box"), o: Options{Templates: map[string]string{"box": "sha256:aaaa"}}},
		{name: "an environment made by hand becomes the project's", text: shop, have: func(all []api.Environment) []api.Environment {
			all[0].Spec.Labels = map[string]string{api.DependsOnLabel: "db"}
			return all
		}},
		{name: "a stratum that it is at already", text: replaced("command: [serve]", "stratum: guest, command: [serve]"), have: func(all []api.Environment) []api.Environment {
			all[0].Stratum = "guest"
			return all
		}},
		{name: "a stratum that it is not at", text: replaced("command: [serve]", "stratum: guest, command: [serve]")},
		{name: "one by force is a move too", text: replaced("command: [serve]", "stratum: guest, force: true, command: [serve]")},
		{name: "what was put elsewhere by force stays there", text: shop, have: func(all []api.Environment) []api.Environment {
			all[0].Stratum, all[0].Spec.Stratum, all[0].Spec.Force = "guest", "guest", true
			return all
		}},
	}
	got := map[string][]Step{}
	for _, c := range cases {
		have := made(t, shop)
		if strings.Contains(c.text, "start: once") || strings.Contains(c.text, "start: never") {
			have = made(t, c.text)
		}
		if c.have != nil {
			have = c.have(have)
		}
		f, err := Read([]byte(c.text), "strata.yaml", "/here")
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p, err := New(f, have, c.o)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got[c.name] = p.Steps
	}
	golden(t, got)
}

// alien is a file with a system that strata does not know.
func alien(resources string) string {
	return "environments: [{name: alien, foreign: {disk-image: /a.qcow2, os: linux}, resources: {" + resources + "}}]"
}

// foreign has it run with 1 GiB of memory, and with room for most.
func foreign(t *testing.T, most unit.Size) func([]api.Environment) []api.Environment {
	all := made(t, alien("memory: 1G, disk: 10G"))
	all[0].Stratum, all[0].Boot = "machine", &api.Boot{Memory: unit.GiB, MostMemory: most, CPUs: 1}
	return func([]api.Environment) []api.Environment { return all }
}

// guest has all run on machines of 256 MiB with one processor.
func guest(all []api.Environment) []api.Environment {
	for i := range all {
		all[i].Stratum, all[i].Boot = "guest", &api.Boot{Memory: 256 * unit.MiB, CPUs: 1}
	}
	return all
}

func growing(all []api.Environment) []api.Environment {
	for i := range all {
		all[i].DiskMost = 160 << 30
	}
	return all
}

func stopped(all []api.Environment) []api.Environment {
	for i := range all {
		all[i].State, all[i].Started = api.Stopped, &time.Time{}
	}
	return all
}

func suspended(all []api.Environment) []api.Environment {
	for i := range all {
		all[i].State, all[i].Stratum = api.Suspended, "guest"
	}
	return all
}

func golden(t *testing.T, v any) {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "plans.json")
	if *rewrite {
		if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)+"\n"); diff != "" {
		t.Errorf("the plans are others (-golden +got; go test -rewrite takes them):\n%s", diff)
	}
}

// TestWhatTheAPIChangesIsChangedByIt holds every field of api.Update against the spec: each
// is the whole of what a plan asks for, so that a field of the API is not forgotten.
func TestWhatTheAPIChangesIsChangedByIt(t *testing.T) {
	var changed []string
	var walk func(prefix string, all []field)
	walk = func(prefix string, all []field) {
		for _, f := range all {
			if changeable(f) != "" {
				changed = append(changed, f.key)
			} else if f.kind.Kind() == reflect.Struct {
				walk(prefix+f.key+".", fieldsOf(f.kind))
			}
		}
	}
	walk("", fieldsOf(reflect.TypeFor[api.Spec]()))
	for _, u := range fieldsOf(reflect.TypeFor[api.Update]()) {
		found := u.key == "remove-labels" || u.key == "swap-default"
		for _, one := range changed {
			found = found || one == u.key
		}
		if !found {
			t.Errorf("api.Update has %s, and no field of api.Spec is changed by it", u.key)
		}
	}
}

func TestAnUpdateAsksForExactlyWhatDiffers(t *testing.T) {
	f, err := Read([]byte(strings.Replace(shop, "memory: 64M, disk: 10G}", "memory: 1G, disk: 10G}, labels: {a: b}", 1)), "f", "/")
	if err != nil {
		t.Fatal(err)
	}
	have := made(t, shop)
	have[0].Spec.Labels["old"] = "x"
	p, err := New(f, have, Options{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := json.Marshal(p.Steps[1].Update)
	if want := `{"memory":1073741824,"labels":{"a":"b"},"remove_labels":["old"]}`; err != nil || string(u) != want {
		t.Errorf("%s; want %s", u, want)
	}
}

func TestAWordForNothingIsNoDifference(t *testing.T) {
	words := strings.Replace(shop, "memory: 64M, disk: 10G}", "memory: 64M, disk: 10G, cpuset-cpus: all, reclaim: off}", 1)
	f, err := Read([]byte(words), "f", "/")
	if err != nil {
		t.Fatal(err)
	}
	have := made(t, shop)
	p, err := New(f, have, Options{})
	if err != nil || p.Steps[1].Action != None {
		t.Errorf("%+v, %v; want no change", p.Steps[1], err)
	}
	have[0].Spec.Resources.CPUSet, have[0].Spec.Resources.Reclaim = "0", api.ReclaimIdle
	p, err = New(f, have, Options{})
	if err != nil {
		t.Fatal(err)
	}
	u, err := json.Marshal(p.Steps[1].Update)
	if want := `{"cpuset_cpus":"","reclaim":"off"}`; err != nil || string(u) != want {
		t.Errorf("%s, %v; want %s", u, err, want)
	}
}

// TestWhatIsLiveIsChangedBeforeAMove has limits change where their holding is certain: where it
// moves to, a machine is started as large as they say.
func TestWhatIsLiveIsChangedBeforeAMove(t *testing.T) {
	for name, c := range map[string]struct {
		limits string
		have   func([]api.Environment) []api.Environment
		ahead  bool
	}{
		"it runs":                          {"memory: 4G", nil, true},
		"it stands still":                  {"memory: 4G", stopped, true},
		"a zone has no such limit at all":  {"memory: 64M, hugepages: 2M", nil, false},
		"it stands still and will have it": {"memory: 64M, hugepages: 2M", stopped, false},
	} {
		f, err := Read([]byte(strings.Replace(shop, "resources: {memory: 64M", "stratum: guest, resources: {"+c.limits, 1)), "f", "/")
		if err != nil {
			t.Fatal(err)
		}
		have := made(t, shop)
		if c.have != nil {
			have = c.have(have)
		}
		p, err := New(f, have, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if s := p.Steps[1]; s.Ahead != c.ahead || s.MoveTo != "guest" || reflect.DeepEqual(s.Update, api.Update{}) {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		o    Options
		kind fault.Kind
		says string
		have func([]api.Environment) []api.Environment
	}{
		"another project's":         {"project: other\nenvironments: [{name: web, template: x}]\n", Options{}, fault.Conflict, `f:2:23: web is of the project "shop"`, nil},
		"no project's":              {"environments: [{name: web, template: x}]\n", Options{}, fault.Conflict, `project "shop"`, nil},
		"prune without a project":   {"environments: [{name: a, template: x}]\n", Options{Prune: true}, fault.Invalid, "names no project", nil},
		"memory of what is written": {strings.Replace(shop, "memory: 64M", "memory: 65M", 1), Options{}, fault.Conflict, `f:3:72: web is suspended`, suspended},
		"and its disk":              {strings.Replace(shop, "disk: 10G", "disk: 20G", 1), Options{}, fault.Conflict, "web is suspended", suspended},
		"swap of a guest":           {strings.Replace(shop, "memory: 64M", "memory: 64M, swap: 1G", 1), Options{}, fault.Unable, "f:3:83: a guest has no setting swap", guest},
		"swap of what becomes one":  {strings.Replace(shop, "resources: {memory: 64M", "stratum: guest, resources: {swap: 1G, memory: 64M", 1), Options{}, fault.Unable, "a guest has no setting swap", nil},
	} {
		have := made(t, shop)
		if c.have != nil {
			have = c.have(have)
		}
		f, err := Read([]byte(c.text), "f", "/")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(f, have, c.o); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
