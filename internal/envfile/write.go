package envfile

import (
	"bytes"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// Of returns the file that environments could have been made by. Dependencies on others
// than these are left out, and told as notes. Kinds: Conflict (several projects).
func Of(envs []api.Environment) (f File, notes []string, err error) {
	for i, env := range envs {
		spec := env.Spec
		project := spec.Labels[api.ProjectLabel]
		if i > 0 && project != f.Project {
			return f, nil, fault.Conflictf("%s is of project %q and %s of %q, and a file has one project", envs[0].Name, f.Project, env.Name, project).Help("export the environments of each project by themselves")
		}
		f.Project, spec.Name = project, env.Name
		e := Entry{Spec: spec, Start: spec.Labels[api.StartLabel]}
		for _, d := range dependsIn(spec.Labels[api.DependsOnLabel]) {
			if !slices.ContainsFunc(envs, func(other api.Environment) bool { return other.Name == d.Name }) {
				notes = append(notes, env.Name+" depends on "+d.Name+", which is not exported: the dependency is left out")
				continue
			}
			e.DependsOn = append(e.DependsOn, d)
		}
		e.Labels = map[string]string{}
		for k, v := range spec.Labels {
			if !slices.Contains(ownLabels, k) {
				e.Labels[k] = v
			}
		}
		f.Environments = append(f.Environments, e)
	}
	return f, notes, nil
}

// Write returns f as text that Read reads as the same.
func (f File) Write() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(node(reflect.ValueOf(f), field{})); err != nil {
		return nil, fault.Internalf("the file cannot be written: %w", err)
	}
	return b.Bytes(), nil
}

// node returns what stands for v in a file.
func node(v reflect.Value, f field) *yaml.Node {
	scalar := func(tag, value string) *yaml.Node {
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}
		if strings.HasPrefix(value, "\t") && strings.Contains(value, "\n") {
			n.Style = yaml.DoubleQuotedStyle // as a block it would begin like an indentation by tabs, which is none
		}
		return n
	}
	if q, ok := quantities[v.Type()]; ok {
		text := q.write(v.Int())
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			return scalar("!!int", text)
		}
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return scalar("!!float", text)
		}
		return scalar("!!str", text)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return node(v.Elem(), f)
	case reflect.Struct:
		return structNode(v)
	case reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			list.Content = append(list.Content, node(v.Index(i), field{}))
		}
		return list
	case reflect.Map:
		m := &yaml.Node{Kind: yaml.MappingNode}
		names := v.MapKeys()
		slices.SortFunc(names, func(a, b reflect.Value) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
		for _, name := range names {
			m.Content = append(m.Content, scalar("!!str", name.String()), node(v.MapIndex(name), field{}))
		}
		return m
	case reflect.Bool:
		return scalar("!!bool", strconv.FormatBool(v.Bool()))
	case reflect.String:
		return scalar("!!str", v.String())
	}
	if v.CanUint() {
		if f.key == "mode" {
			return scalar("!!int", "0o"+strconv.FormatUint(v.Uint(), 8))
		}
		return scalar("!!int", strconv.FormatUint(v.Uint(), 10))
	}
	return scalar("!!int", strconv.FormatInt(v.Int(), 10))
}

// structNode has the fields that are set; one word where an entry of depends-on is that.
func structNode(v reflect.Value) *yaml.Node {
	if d, ok := v.Interface().(Dependency); ok {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: dependsText([]Dependency{d})}
	}
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range fieldsOf(v.Type()) {
		one := v.FieldByIndex(f.index)
		empty := one.IsZero() || (one.Kind() == reflect.Slice || one.Kind() == reflect.Map) && one.Len() == 0
		if !empty || f.required {
			m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: f.key}, node(one, f))
		}
	}
	return m
}
