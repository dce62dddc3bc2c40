package envfile

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/shortform"
)

// list reads a sequence.
func (r *reader) list(n *yaml.Node, v reflect.Value, path string, f field) {
	if n.Kind == yaml.MappingNode && f.key == "env" {
		r.variables(n, v, path)
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.fault(n, path, "%s stands where a list belongs", kindText(n)).Help("write it as a list, such as [one, two]")
		return
	}
	if most, ok := f.bound("maxItems"); ok && int64(len(n.Content)) > most {
		r.fault(n, path, "%d are more than %d", len(n.Content), most)
		return
	}
	if least, ok := f.bound("minItems"); ok && int64(len(n.Content)) < least {
		r.fault(n, path, "it is empty").Help("write at least %d", least)
	}
	item := field{kind: v.Type().Elem(), tag: itemTag(v.Type().Elem())}
	out := reflect.MakeSlice(v.Type(), 0, len(n.Content))
	for _, one := range n.Content {
		if many, ok := r.ports(one, v.Type().Elem(), path, out.Len()); ok {
			out = reflect.AppendSlice(out, reflect.ValueOf(many))
			continue
		}
		into := reflect.New(v.Type().Elem()).Elem()
		r.value(one, into, fmt.Sprintf("%s[%d]", path, out.Len()), item)
		out = reflect.Append(out, into)
	}
	v.Set(out)
}

// ports reads a port or a range of ports in one word.
func (r *reader) ports(n *yaml.Node, t reflect.Type, path string, from int) ([]api.Port, bool) {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if t != reflect.TypeFor[api.Port]() || n.Kind != yaml.ScalarNode {
		return nil, false
	}
	if r.resolve(n, path) == nil {
		return nil, true
	}
	all, err := shortform.Port(n.Value)
	if err != nil {
		r.tell(n, fmt.Sprintf("%s[%d]", path, from), err)
	}
	for i := range all {
		r.at[fmt.Sprintf("%s[%d]", path, from+i)] = position{n.Line, n.Column}
	}
	return all, true
}

// variables reads NAME: value, in the file's order.
func (r *reader) variables(n *yaml.Node, v reflect.Value, path string) {
	var env []string
	for _, p := range r.pairs(n, path, maxMerge) {
		var value string
		r.value(p.value, reflect.ValueOf(&value).Elem(), fmt.Sprintf("%s[%d]", path, len(env)), field{tag: itemTag(reflect.TypeFor[string]())})
		env = append(env, p.key.Value+"="+value)
	}
	v.Set(reflect.ValueOf(env))
}

// mapping reads free words, such as labels.
func (r *reader) mapping(n *yaml.Node, v reflect.Value, path string, f field) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "%s stands where a mapping belongs", kindText(n)).Help("write NAME: value")
		return
	}
	out := reflect.MakeMap(v.Type())
	for _, p := range r.pairs(n, path, maxMerge) {
		if slices.Contains(ownLabels, p.key.Value) && f.key == "labels" {
			r.fault(p.key, under(path, p.key.Value), "the label %s is made from the file's own fields", p.key.Value).Help("leave it out, and use project, depends-on and start")
			continue
		}
		into := reflect.New(v.Type().Elem()).Elem()
		r.value(p.value, into, under(path, p.key.Value), field{kind: v.Type().Elem(), tag: `maxLength:"4096"`})
		out.SetMapIndex(reflect.ValueOf(p.key.Value), into)
	}
	v.Set(out)
}

// scalar reads text, a truth or a number.
func (r *reader) scalar(n *yaml.Node, v reflect.Value, path string, f field) {
	switch v.Kind() {
	case reflect.String:
		text, ok := r.text(n, path, "text")
		if most, bounded := f.bound("maxLength"); ok && bounded && int64(len(text)) > most {
			r.fault(n, path, "%s is longer than %d bytes", clip(text), most)
			return
		}
		if words := f.enum(); ok && words != nil && !slices.Contains(words, text) {
			e := r.fault(n, path, "%s is not accepted", clip(text))
			e.Help("accepted: %s", strings.Join(words, ", "))
		}
		v.SetString(text)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			r.fault(n, path, "%s stands where a truth belongs", kindText(n)).Help("write true or false")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	default:
		r.number(n, v, path, f)
	}
}

// number reads a whole number; 0o and a leading 0 make it octal.
func (r *reader) number(n *yaml.Node, v reflect.Value, path string, f field) {
	low, high := f.bounds(v.Type())
	got, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 64)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil {
		r.fault(n, path, "%s stands where a whole number belongs", kindText(n))
		return
	}
	if got < low || got > high {
		r.fault(n, path, "%d is out of bounds", got).Help("write %d to %d", low, high)
		return
	}
	if v.CanUint() {
		v.SetUint(uint64(got))
		return
	}
	v.SetInt(got)
}

// short reads a structure that was written in one word, and tells whether it was.
func (r *reader) short(n *yaml.Node, v reflect.Value, path string) bool {
	if n.Kind != yaml.ScalarNode {
		return false
	}
	var err error
	switch into := v.Addr().Interface().(type) {
	case *api.Volume:
		*into, err = shortform.Volume(n.Value, r.dir)
	case *api.Tmpfs:
		*into, err = shortform.Tmpfs(n.Value)
	case *api.Restart:
		*into, err = shortform.Restart(n.Value)
	case *Dependency:
		name, until, given := strings.Cut(n.Value, ":")
		words := fieldsOf(v.Type())[1].enum()
		*into = Dependency{Name: name, Until: until}
		if given && !slices.Contains(words, until) {
			err = fault.Invalidf("%s is not waited for", clip(until)).Help("write NAME, or NAME: and one of %s", strings.Join(words, ", "))
		}
	default:
		return false
	}
	if err != nil {
		r.tell(n, path, err)
	}
	return true
}

// check looks at what several fields together must be.
func (r *reader) check(f *File) {
	if f.Project != "" && !label(f.Project) {
		r.wrong("project", "%s cannot be a project's name", clip(f.Project)).Help("use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")
	}
	r.checkNetworks(f)
	names := map[string]int{}
	for i := range f.Environments {
		e, path := &f.Environments[i], fmt.Sprintf("environments[%d]", i)
		if !label(e.Name) {
			r.wrong(path+".name", "%s cannot be a name", clip(e.Name)).Help("use 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")
		}
		if first, twice := names[e.Name]; twice {
			r.wrong(path+".name", "%s is described a second time, first in line %d", clip(e.Name), r.at[fmt.Sprintf("environments[%d]", first)].line)
			continue
		}
		names[e.Name] = i
		if e.Template == "" && e.Foreign == nil {
			r.wrong(path, "%s has neither a template nor a foreign system", e.Name).Help("write template: NAME, such as busybox")
		}
		for j := range e.Volumes { // one word was completed when it was read
			r.complete(&e.Volumes[j].Source)
		}
		if e.Foreign != nil {
			r.complete(&e.Foreign.DiskImage)
			r.complete(&e.Foreign.ISO)
		}
	}
	r.dependencies(f, names)
}

// complete makes a path of the host that begins with a dot one below the file's folder.
func (r *reader) complete(path *string) {
	if *path == "." || *path == ".." || strings.HasPrefix(*path, "./") || strings.HasPrefix(*path, "../") {
		*path = filepath.Join(r.dir, *path)
	}
}

// wrong notes what is wrong at a path that was read.
func (r *reader) wrong(path, format string, args ...any) *fault.Error {
	at := r.at[path]
	return r.fault(&yaml.Node{Line: at.line, Column: at.column}, path, format, args...)
}

// label tells whether s is a DNS label in lower case. Source: RFC 1123 section 2.1.
func label(s string) bool {
	return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
