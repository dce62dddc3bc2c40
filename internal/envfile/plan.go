package envfile

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/settings"
	"github.com/strata-project/strata/internal/unit"
)

// What is done to an environment.
const (
	Create  = "create"  // it is not there
	Change  = "change"  // it is changed as it is
	Move    = "move"    // it is run at another stratum, with its disk, and changed
	Restart = "restart" // it is stopped, changed and started
	Replace = "replace" // it is removed and made anew, without its disk's content
	Remove  = "remove"  // it is the project's, and no longer in the file
	None    = "none"
)

// Plan is what would make environments what a file says. Steps stand in the order in
// which they are taken: removals, and then what each depends on before it.
type Plan struct {
	Project  string        `json:"project,omitempty"`
	Networks []NetworkStep `json:"networks,omitempty"` // made before the steps, removed after them
	Steps    []Step        `json:"steps"`
}

// Step is what is done to one environment.
type Step struct {
	Name   string       `json:"name"`
	Action string       `json:"action"`
	Start  bool         `json:"start,omitempty"` // it is started afterwards
	Why    string       `json:"why,omitempty"`
	Fields []Difference `json:"fields,omitempty"`
	Notes  []string     `json:"notes,omitempty"`

	MoveTo string       `json:"-"` // the stratum that it moves to, with Move and Restart; "": it stays
	Update api.Update   `json:"-"` // what changes, with Change, Move and Restart
	Ahead  bool         `json:"-"` // it changes before it moves, with Move
	Spec   api.Spec     `json:"-"` // what it should be; zero with Remove
	Waits  []Dependency `json:"-"`
}

// Difference is a field that is not as it should be.
type Difference struct {
	Field string `json:"field"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
	How   string `json:"how"` // live, move, restart or replace
}

// Live is how a difference is made good without a stop. The other ways are Move, Restart and Replace.
const Live = "live"

// Options of New. Templates says which template the name of one stands for now, as far
// as it is here.
type Options struct {
	Prune, Recreate bool
	Templates       map[string]string
	Networks        []api.Network // that exist
}

// New compares f with all environments and networks that exist. With Prune, what is the project's and
// not in f is removed. Kinds: Conflict (an environment of another project, or one that is
// suspended and would be changed), Invalid (Prune without a project), Unable (a limit that
// the stratum has not).
func New(f File, have []api.Environment, o Options) (Plan, error) {
	p := Plan{Project: f.Project, Steps: []Step{}}
	if o.Prune && f.Project == "" {
		return p, fault.Invalidf("%s names no project, so what it made once cannot be told", f.name).At("prune").Help("write project: NAME at its top, and apply it once without --prune")
	}
	if o.Prune {
		p.Steps = append(p.Steps, removals(f, have)...)
	}
	var bad []error
	made, err := networks(f, o)
	p.Networks, bad = made, append(bad, err)
	for _, e := range Order(f.Environments) {
		i := slices.IndexFunc(have, func(env api.Environment) bool { return env.Name == e.Name })
		if i < 0 {
			p.Steps = append(p.Steps, Step{Name: e.Name, Action: Create, Start: e.Start != Never, Spec: f.Spec(e), Waits: e.DependsOn})
			continue
		}
		if owner := have[i].Spec.Labels[api.ProjectLabel]; owner != "" && owner != f.Project {
			bad = append(bad, f.Locate(e.Name, fault.Conflictf("%s is of the project %q", e.Name, owner).At("name").Help("choose another name, or write project: %s", owner)))
			continue
		}
		s := compare(f, e, have[i], o)
		bad = append(bad, f.Locate(e.Name, refused(s, have[i])))
		p.Steps = append(p.Steps, s)
	}
	return p, fault.Join(bad...)
}

// removals are the project's environments that f does not name, those that others depend on last.
func removals(f File, have []api.Environment) []Step {
	var gone []Entry
	for _, env := range have {
		named := slices.ContainsFunc(f.Environments, func(e Entry) bool { return e.Name == env.Name })
		if env.Spec.Labels[api.ProjectLabel] == f.Project && !named {
			gone = append(gone, Entry{Spec: api.Spec{Name: env.Name}, DependsOn: dependsIn(env.Spec.Labels[api.DependsOnLabel])})
		}
	}
	for i := range gone { // only among one another
		gone[i].DependsOn = slices.DeleteFunc(gone[i].DependsOn, func(d Dependency) bool {
			return !slices.ContainsFunc(gone, func(e Entry) bool { return e.Name == d.Name })
		})
	}
	ordered := Order(gone)
	for _, e := range gone { // whatever labels say, all go
		if !slices.ContainsFunc(ordered, func(o Entry) bool { return o.Name == e.Name }) {
			ordered = append(ordered, e)
		}
	}
	slices.Reverse(ordered)
	var steps []Step
	for _, e := range ordered {
		steps = append(steps, Step{Name: e.Name, Action: Remove, Why: "it is of the project and not in the file"})
	}
	return steps
}

// compare says what makes env what e says.
func compare(f File, e Entry, env api.Environment, o Options) Step {
	s := Step{Name: e.Name, Action: None, Spec: f.Spec(e), Waits: e.DependsOn, Start: starts(e, env)}
	was := env.Spec
	was.Name, was.Resources = e.Name, was.Resources.Plain()
	if id := o.Templates[e.Template]; id != "" && id == env.TemplateID {
		was.Template = e.Template // another name for the same
	} else if id != "" && was.Template == e.Template {
		note := "the name " + e.Template + " stands for another template than when it was made"
		if !o.Recreate {
			s.Notes = append(s.Notes, note+"; --recreate takes that one")
		} else {
			s.Fields = append(s.Fields, Difference{Field: "template", From: short(env.TemplateID), To: short(id), How: Replace})
		}
	}
	if e.Stratum == "" || e.Stratum == env.Stratum { // it is where it may be
		if e.Stratum == "" && was.Stratum != "" {
			s.Notes = append(s.Notes, "it stays at the stratum "+env.Stratum+", which the file does not name")
		}
		was.Stratum = e.Stratum
	} else {
		was.Stratum = env.Stratum
	}
	was.Force = s.Spec.Force // by which it is made and moved, and which says nothing of what is there
	s.Fields = append(s.Fields, differences(reflect.ValueOf(was), reflect.ValueOf(s.Spec), "", env)...)
	s.Action = action(s.Fields)
	switch s.Action {
	case Change, Move, Restart:
		s.Update = update(s.Fields, was, s.Spec)
		if was.Stratum != s.Spec.Stratum {
			s.MoveTo = s.Spec.Stratum
			// All that is live is so where it is now; how large it will be there is not known.
			s.Ahead = s.Action == Move && settings.Refused(s.Spec.Resources, env.Stratum) == nil
		}
	case Replace:
		s.Start = e.Start != Never
	}
	s.Start = s.Start || s.Action == Restart
	return s
}

// refused tells of what cannot come about, however it is tried. Kinds: Conflict (what is
// suspended goes on as it was), Unable (the stratum has no such limit).
func refused(s Step, env api.Environment) error {
	switch s.Action {
	case Restart:
		if env.State == api.Suspended {
			i := slices.IndexFunc(s.Fields, func(d Difference) bool { return d.How == Restart })
			return fault.Conflictf("%s is suspended, and goes on with the limits that it had", s.Name).At(s.Fields[i].Field).
				Help("resume it first: strata resume %s; or give up what was in its memory: strata kill %s", s.Name, s.Name)
		}
	case Change, Move:
	default:
		return nil
	}
	at := s.MoveTo
	if at == "" {
		at = env.Stratum
	}
	return settings.Refused(s.Spec.Resources, at)
}

// starts tells whether what is there is started.
func starts(e Entry, env api.Environment) bool {
	switch env.State {
	case api.Created:
		return e.Start != Never
	case api.Stopped, api.Suspended:
		return e.Start == "" || e.Start == Always || e.Start == Once && env.Started == nil // its start failed
	}
	return false
}

func short(id string) string {
	_, hex, _ := strings.Cut(id, ":")
	return hex[:min(12, len(hex))]
}

// action is the least that all differences take.
func action(all []Difference) string {
	worst := None
	for _, d := range all {
		switch {
		case d.How == Replace:
			return Replace
		case d.How == Restart:
			worst = Restart
		case d.How == Move && worst != Restart:
			worst = Move
		case worst == None:
			worst = Change
		}
	}
	return worst
}

// differences lists the fields in which two structures differ, those of resources and of
// the log each by itself.
func differences(was, now reflect.Value, path string, env api.Environment) []Difference {
	var all []Difference
	for _, f := range fieldsOf(now.Type()) {
		from, to := was.FieldByIndex(f.index), now.FieldByIndex(f.index)
		if same(from, to) {
			continue
		}
		name := under(path, f.key)
		if f.kind.Kind() == reflect.Struct && changeable(f) == "" {
			all = append(all, differences(from, to, name, env)...)
			continue
		}
		d := Difference{Field: name, From: show(from, f), To: show(to, f), How: Replace}
		if name == "env" { // values may be secrets
			d.From, d.To = namesOnly(from.Interface().([]string), to.Interface().([]string)), namesOnly(to.Interface().([]string), from.Interface().([]string))
		}
		switch {
		case changeable(f) != "":
			d.How = how(name, from, to, env)
		case name == "stratum" && env.Spec.Foreign == nil:
			d.How = Move
		}
		all = append(all, d)
	}
	return all
}

// same compares as the API's wire has it, where what is empty and what is left out are one.
func same(a, b reflect.Value) bool {
	empty := func(v reflect.Value) bool {
		return (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0
	}
	return empty(a) && empty(b) || reflect.DeepEqual(a.Interface(), b.Interface())
}

// changeable returns the field of api.Update that changes f, "" where none does.
func changeable(f field) string {
	for _, u := range fieldsOf(reflect.TypeFor[api.Update]()) {
		kind := u.kind
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		of := f.kind
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if u.key == f.key && kind == of {
			return u.key
		}
	}
	return ""
}

// how a change of a field that can change is made. A disk grows in use as far as it can, and
// never shrinks; that of a foreign system keeps its size.
func how(name string, from, to reflect.Value, env api.Environment) string {
	if name == "resources.disk" {
		had := unit.Size(from.Int())
		if had == 0 {
			had = unit.Size(env.DiskSize)
		}
		if env.Spec.Foreign != nil || unit.Size(to.Int()) < had { // none is the default, which is less than what was asked for
			return Replace
		}
	}
	i := slices.IndexFunc(settings.All, func(s settings.Setting) bool { return "resources."+s.Flag == name })
	if i < 0 || env.State == api.Created || env.State == api.Stopped {
		return Live
	}
	switch settings.All[i].At(env.Stratum) {
	case settings.Live:
		return Live
	case settings.Ahead:
		if env.State == api.Running && unit.Size(to.Int()) <= unit.Size(env.DiskMost) {
			return Live
		}
	case settings.Within, settings.Room:
		if env.State != api.Suspended && within(name, to, env) {
			return Live
		}
	}
	return Restart
}

// within tells whether the machine that runs is large enough for a limit, or can be made so.
func within(name string, to reflect.Value, env api.Environment) bool {
	if env.Boot == nil { // it is between two runs
		return true
	}
	switch name {
	case "resources.memory", "resources.memory-guarantee":
		size, most := unit.Size(to.Int()), max(env.Boot.Memory, env.Boot.MostMemory)
		switch {
		case env.Spec.Foreign == nil:
			return size == 0 || size+api.OwnShare <= most
		case name == "resources.memory": // a foreign system gives none back, and has what is plugged in
			return size >= env.Boot.Memory && size <= env.Boot.MostMemory
		}
		return size <= env.Boot.Memory
	}
	return unit.CPUs(to.Int()) <= unit.CPUs(max(env.Boot.CPUs, env.Boot.MostCPUs))*oneCPU
}

// oneCPU is a whole processor.
const oneCPU unit.CPUs = 1000

// update is what the API is asked for so that the differences are gone.
func update(all []Difference, was, now api.Spec) api.Update {
	var u api.Update
	target := reflect.ValueOf(&u).Elem()
	for _, d := range all {
		if d.Field == "labels" {
			u.Labels = map[string]string{}
			for k, v := range now.Labels {
				if old, had := was.Labels[k]; !had || old != v {
					u.Labels[k] = v
				}
			}
			for k := range was.Labels {
				if _, has := now.Labels[k]; !has {
					u.RemoveLabels = append(u.RemoveLabels, k)
				}
			}
			slices.Sort(u.RemoveLabels)
			continue
		}
		value := at(reflect.ValueOf(now), d.Field)
		for _, f := range fieldsOf(target.Type()) {
			if f.key != d.Field[strings.LastIndexByte(d.Field, '.')+1:] {
				continue
			}
			if f.key == "swap" && value.IsNil() {
				u.SwapDefault = true
				continue
			}
			if f.key == "reclaim" && value.IsZero() { // which the API has a word for
				value = reflect.ValueOf(api.ReclaimOff)
			}
			if value.Kind() != reflect.Pointer {
				held := reflect.New(value.Type())
				held.Elem().Set(value)
				value = held
			}
			target.FieldByIndex(f.index).Set(value)
		}
	}
	return u
}

// at returns the field that a path leads to.
func at(v reflect.Value, path string) reflect.Value {
	for part := range strings.SplitSeq(path, ".") {
		for _, f := range fieldsOf(v.Type()) {
			if f.key == part {
				v = v.FieldByIndex(f.index)
				break
			}
		}
	}
	return v
}

// show writes a value in a few words, "" for one that is not set.
func show(v reflect.Value, f field) string {
	if v.IsZero() || (v.Kind() == reflect.Slice || v.Kind() == reflect.Map) && v.Len() == 0 {
		return ""
	}
	if v.Kind() == reflect.Pointer && v.Type().Elem().Kind() != reflect.Struct {
		return plain(v.Elem())
	}
	if q, ok := quantities[v.Type()]; ok {
		return q.write(v.Int())
	}
	if f.kind.Kind() == reflect.String {
		return v.String()
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return fmt.Sprint(v.Interface())
	}
	return string(text)
}

// namesOnly lists the variables of one that the other has not, or otherwise.
func namesOnly(one, other []string) string {
	var names []string
	for _, v := range one {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(other, v) {
			names = append(names, name)
		}
	}
	if names == nil && one != nil {
		return "another order"
	}
	return strings.Join(names, ", ")
}

// plain writes a quantity or number that may be zero.
func plain(v reflect.Value) string {
	if q, ok := quantities[v.Type()]; ok {
		return q.write(v.Int())
	}
	return fmt.Sprint(v.Interface())
}
