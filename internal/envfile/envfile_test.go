package envfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// fill sets everything that is in v to something that is not its zero value.
func fill(v reflect.Value, f field, n *int) {
	*n++
	if words := f.enum(); words != nil {
		v.SetString(words[len(words)-1])
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), field{kind: v.Type().Elem(), tag: f.tag}, n)
	case reflect.Struct:
		for _, inner := range fieldsOf(v.Type()) {
			fill(v.FieldByIndex(inner.index), inner, n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), field{key: f.key}, n)
		fill(v.Index(1), field{key: f.key}, n)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"team": "web: yes", "0": ""}))
	case reflect.String:
		v.SetString(fmt.Sprintf("w%d", *n))
	case reflect.Bool:
		v.SetBool(true)
	default:
		if v.CanUint() {
			v.SetUint(uint64(*n % 97))
			return
		}
		v.SetInt(int64(*n%97) + 1537)
	}
}

// full returns an entry in which every field is set.
func full() Entry {
	var e Entry
	n := 0
	fill(reflect.ValueOf(&e).Elem(), field{}, &n)
	e.Start = ""
	for i := range e.Volumes {
		e.Volumes[i].Source = "/" + e.Volumes[i].Source
	}
	e.Health.Retries, e.Log.Files, e.Restart.Max = 5, 9, 3
	return e
}

func TestEveryFieldOfTheAPIIsAFieldOfFilesAndComesBack(t *testing.T) {
	e := full()
	wire, err := json.Marshal(e.Spec)
	if err != nil {
		t.Fatal(err)
	}
	var sent map[string]any
	if err := json.Unmarshal(wire, &sent); err != nil {
		t.Fatal(err)
	}
	if want := reflect.TypeFor[api.Spec]().NumField(); len(sent) != want {
		t.Fatalf("the test fills %d of %d fields", len(sent), want)
	}
	first := e.DependsOn[0].Name
	second := e.DependsOn[1].Name
	f := File{Project: "shop", Environments: []Entry{e, {Spec: api.Spec{Name: first, Template: "busybox"}, Start: Once}, {Spec: api.Spec{Name: second, Template: "busybox"}, Start: Once}}}
	text, err := f.Write()
	if err != nil {
		t.Fatal(err)
	}
	for name := range sent {
		if !strings.Contains(string(text), key(name)+":") {
			t.Errorf("the file lacks %s:\n%s", name, text)
		}
	}
	got, err := Read(text, "strata.yaml", "/here")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if diff := cmp.Diff(f, got, cmpopts.IgnoreUnexported(File{})); diff != "" {
		t.Errorf("it came back otherwise (-wrote +read):\n%s\n%s", diff, text)
	}
}

func TestExportedEnvironmentsGiveTheSameFile(t *testing.T) {
	text := []byte(example(t))
	f, err := Read(text, "strata.yaml", "/here")
	if err != nil {
		t.Fatal(err)
	}
	var made []api.Environment
	for _, e := range f.Environments {
		made = append(made, api.Environment{Name: e.Name, Spec: f.Spec(e)})
	}
	again, notes, err := Of(made)
	if err != nil || notes != nil {
		t.Fatal(err, notes)
	}
	written, err := again.Write()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Read(written, "again.yaml", "/elsewhere")
	if err != nil {
		t.Fatalf("%v\n%s", err, written)
	}
	for i := range f.Environments {
		if diff := cmp.Diff(f.Spec(f.Environments[i]), back.Spec(back.Environments[i]), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-first +again):\n%s", f.Environments[i].Name, diff)
		}
	}
	_, notes, err = Of(made[len(made)-1:])
	if err != nil || len(notes) == 0 {
		t.Errorf("one alone, which depends on others: %q, %v; want a note", notes, err)
	}
	made[0].Spec.Labels = map[string]string{api.ProjectLabel: "other"}
	if _, _, err := Of(made); !fault.Is(err, fault.Conflict) {
		t.Errorf("of two projects: %v", err)
	}
}

// example is the file in the documentation.
func example(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "environment-file.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	yaml, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("the documentation has no example")
	}
	return yaml
}

func TestTheSchemaIsCheckedIn(t *testing.T) {
	have, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "environment-file.schema.json"))
	if err != nil || !bytes.Equal(have, Schema()) {
		t.Errorf("docs/reference/environment-file.schema.json is not what the types say (%v): run `make generate`", err)
	}
}

const head = "environments:\n- name: web\n  template: busybox\n"

// mistakes are files that are refused, with the place and the help of the first fault.
var mistakes = map[string]struct{ text, says, hint string }{
	"empty":                        {"", "strata.yaml is empty", "environments"},
	"not YAML":                     {"environments:\n  - a: b: c\n", "strata.yaml:2:3: it is no YAML", ""},
	"a tab":                        {"environments:\n- name: a\n  template: busybox\n\tcommand: x\n", "strata.yaml:4:1: it is no YAML", "spaces"},
	"two documents":                {head + "---\na: b\n", "a second document", "one list"},
	"a list at the top":            {"- a\n", "strata.yaml:1:1: a list stands where a mapping belongs", "environments"},
	"nothing in it":                {"environments: []\n", "strata.yaml:1:15: it is empty", ""},
	"a field with a slip":          {head + "  resources:\n    memroy: 512M\n", `strata.yaml:5:5: "memroy" is not a field of environments[0].resources`, "nearest: memory"},
	"the API's spelling":           {head + "  read_only: true\n", `4:3: "read_only"`, "nearest: read-only"},
	"an unknown field":             {head + "  colour: red\n", "4:3", "accepted: name, template"},
	"no template":                  {"environments:\n- name: web\n", "strata.yaml:2:3: web has neither a template", "template"},
	"no name":                      {"environments:\n- template: busybox\n", "2:3: name is missing", ""},
	"a field twice":                {head + "  name: x\n", `4:3: "name" stands here a second time, first in line 2`, ""},
	"a name twice":                 {head + "- name: web\n  template: busybox\n", "4:9: \"web\" is described a second time, first in line 2", ""},
	"a bad size":                   {head + "  resources: {memory: 5X}\n", `4:23: "5X" is not a size`, "512M"},
	"a negative time":              {head + "  stop-grace: -5s\n", `4:15: "-5s" is less than nothing`, ""},
	"a word outside of a list":     {head + "  kind: apps\n", `4:9: "apps" is not accepted`, "app, system"},
	"a number outside its bounds":  {head + "  ports: [{host-port: 70000, port: 80}]\n", "4:23: 70000 is out of bounds", "1 to 65535"},
	"a bad port":                   {head + "  ports: [\"80\"]\n", "4:11: ", "HOST:PORT"},
	"a number where a truth is":    {head + "  read-only: 1\n", "4:14", "true or false"},
	"text where a list belongs":    {head + "  command: sleep 5\n", "4:12", "[one, two]"},
	"no value":                     {head + "  user:\n", "4:8: it has no value", ""},
	"a label of strata's":          {head + "  labels: {strata.project: x}\n", "4:12: the label strata.project", "project"},
	"depends on nobody":            {head + "  depends-on: [wbe]\n", `4:16: web depends on "wbe"`, "nearest: web"},
	"depends on itself":            {head + "  depends-on: [web]\n", "4:15: these wait for one another: web -> web", ""},
	"waits for the end of service": {head + "- name: b\n  template: x\n  depends-on: [\"web:ended\"]\n", "6:16", "start: once"},
	"depends on what never starts": {head + "  start: never\n- name: b\n  template: x\n  depends-on: [web]\n", "never started", "web"},
	"an unknown condition":         {head + "  depends-on: [\"web:well\"]\n", `"well" is not waited for`, "healthy"},
	"a long name":                  {head + "  hostname: " + strings.Repeat("x", 64) + "\n", "longer than 63 bytes", ""},
	"a bad project":                {"project: My Shop\n" + head, "1:10", "a-z"},
	"binary":                       {head + "  user: !!binary aGk=\n", "4:9: !!binary", ""},
	"a bad name":                   {"environments:\n- name: -web\n  template: x\n", "2:9: \"-web\" cannot be a name", "a-z"},
	"a bad network":                {head + "networks:\n- name: A\n", "5:9: \"A\" cannot be a name", "a-z"},
	"a field too many of a port":   {head + "  ports: [{host-port: 1, port: 2, prot: udp}]\n", "4:35: \"prot\" is not a field of environments[0].ports[0]", "nearest: port"},
	"a list where text belongs":    {head + "  user: [a]\n", "4:9: a list stands where text belongs", ""},
	"a mapping where a list is":    {head + "  needs: {a: b}\n", "4:10: a mapping stands where a list belongs", ""},
	"a negative bound":             {head + "  ports: [{host-port: -1, port: 80}]\n", "4:23: -1 is out of bounds", "1 to 65535"},
	"merging text":                 {head + "  <<: x\n", "4:7", ""},
}

func TestFaultsHaveTheirPlaceAndWhatHelps(t *testing.T) {
	for name, c := range mistakes {
		t.Run(name, func(t *testing.T) {
			_, err := Read([]byte(c.text), "strata.yaml", "/here")
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v; want an invalid fault", err)
			}
			first := fault.All(err)[0]
			if !strings.Contains(first.Message, c.says) || !strings.Contains(first.Hint, c.hint) {
				t.Errorf("%q (%s); want %q (%s)", first.Message, first.Hint, c.says, c.hint)
			}
		})
	}
}

func TestACircleNamesAllInIt(t *testing.T) {
	_, err := Read([]byte("environments:\n- {name: out, template: x, depends-on: [a]}\n- {name: a, template: x, depends-on: [b]}\n- {name: b, template: x, depends-on: [c]}\n- {name: c, template: x, depends-on: [a]}\n"), "f", "/")
	if err == nil || !strings.Contains(err.Error(), "a -> b -> c -> a") {
		t.Errorf("%v", err)
	}
}

func TestAllFaultsAreToldAtOnce(t *testing.T) {
	_, err := Read([]byte("project: 'A'\nenvironments:\n- {name: a, tmplate: x, kind: b, resources: {memory: x}}\n"), "f", "/")
	if got := len(fault.All(err)); got != 3 { // the unknown field, the kind and the size
		t.Errorf("%d faults: %v", got, err)
	}
}

func TestAliasesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("x-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "x-%d: &a%d {", i, i)
		for j := range 10 {
			fmt.Fprintf(&b, "k%d: 1, <<: *a%d, ", j, i-1)
		}
		b.WriteString("}\n")
	}
	merge := strings.ReplaceAll(b.String(), "&a0 [x, x, x, x, x, x, x, x, x, x]", "&a0 {a: b}")
	for name, text := range map[string]string{
		"merges of merges": merge + "environments: [{name: a, template: x, labels: {<<: *a8}}]\n",
		"many aliases":     "x-l: &l [" + strings.Repeat("x,", 4000) + "]\nenvironments:\n" + strings.Repeat("- {name: a, template: x, command: *l}\n", 900),
		"itself":           "environments: [{name: a, template: x, labels: &l {<<: *l}}]\n",
		"in a list itself": "environments: &e [*e]\n",
	} {
		if _, err := Read([]byte(text), "f", "/"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Read(bytes.Repeat([]byte("#"), MaxBytes+1), "f", "/")
	if err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("a large file: %v", err)
	}
}

// accepted has aliases, merges, and the short forms beside the long ones.
const accepted = `x-base: &base {template: debian, resources: &r {memory: 1G}, env: {A: 1, B: "2"}}
environments:
- {<<: *base, name: one, template: busybox}
- {name: two, template: x, resources: *r, ports: [8000-8001:80-81, {host-port: 1, port: 2}], volumes: [./a:/a:ro, {source: ../b, target: /b}], user: 1000, tmpfs: ["/t:size=1M"], restart: on-failure:3}
`

func TestAliasesAndMergesStandForWhatTheyName(t *testing.T) {
	f, err := Read([]byte(accepted), "f", "/here/there")
	if err != nil {
		t.Fatal(err)
	}
	one, two := f.Environments[0].Spec, f.Environments[1].Spec
	if diff := cmp.Diff(api.Spec{Name: "one", Template: "busybox", Resources: api.Resources{Memory: 1 << 30}, Env: []string{"A=1", "B=2"}}, one); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(api.Spec{
		Name: "two", Template: "x", User: "1000", Resources: api.Resources{Memory: 1 << 30},
		Ports:   []api.Port{{HostPort: 8000, Port: 80}, {HostPort: 8001, Port: 81}, {HostPort: 1, Port: 2}},
		Volumes: []api.Volume{{Source: "/here/there/a", Target: "/a", ReadOnly: true}, {Source: "/here/b", Target: "/b"}},
		Tmpfs:   []api.Tmpfs{{Target: "/t", Size: 1 << 20}}, Restart: api.Restart{Policy: "on-failure", Max: 3},
	}, two); diff != "" {
		t.Error(diff)
	}
}

func TestADaemonsFaultsGetTheirPlace(t *testing.T) {
	f, err := Read([]byte("environments:\n- name: web\n  template: busybox\n  resources:\n    memory: 1M\n  stop-grace: 1s\n"), "f.yaml", "/")
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"resources.memory": "f.yaml:5:13: no", "stop_grace": "f.yaml:6:15: no", "resources.disk": "f.yaml:5:5: no", "volumes[3].source": "f.yaml:2:3: no", "": "f.yaml:2:3: no",
	} {
		if got := fault.All(f.Locate("web", fault.Busyf("no").At(field)))[0]; got.Message != want || got.Kind != fault.Busy {
			t.Errorf("%s: %q, %s; want %q", field, got.Message, got.Kind, want)
		}
	}
	if got := f.Locate("other", fault.Busyf("no")).Error(); got != "no" {
		t.Errorf("of another: %q", got)
	}
}

func TestWordsOfAnyShapeComeBack(t *testing.T) {
	words := []string{"", " ", "\t", "\n"}
	for range 3 { // of up to four parts
		for _, w := range words {
			for _, part := range []string{"a", " ", "\t", "\n", "#", ": ", "- "} {
				words = append(words, w+part)
			}
		}
		slices.Sort(words)
		words = slices.Compact(words)
	}
	f := File{Environments: []Entry{{Spec: api.Spec{Name: "a", Template: "b", Command: words, Labels: map[string]string{"\t\nkey": "\t\nvalue"}}}}}
	text, err := f.Write()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(text, "f", "/here")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f, got, cmpopts.IgnoreUnexported(File{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("environments:\n- {name: a, template: b, ports: [1:2], volumes: [./a:/b], env: {A: b}, stop-grace: 5s}\n")
	f.Add("x-a: &a {b: 1}\nenvironments: [{<<: *a, name: a, template: b, health: {test: [NONE]}, tmpfs: [/t]}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := Read([]byte(text), "f", "/here")
		if err != nil {
			return
		}
		written, err := got.Write()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Read(written, "f", "/elsewhere")
		if err != nil {
			t.Fatalf("what was read is written as what is not: %v\n%s", err, written)
		}
		if diff := cmp.Diff(got, again, cmpopts.IgnoreUnexported(File{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s\n%s", diff, written)
		}
	})
}
