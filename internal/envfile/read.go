package envfile

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/near"
)

// reader turns nodes into values of the types that it is given.
type reader struct {
	name string // of the file
	dir  string // of relative paths
	at   map[string]position
	left int // nodes that may still be read
	bad  []error
}

// fault notes what is wrong at a node.
func (r *reader) fault(n *yaml.Node, path, format string, args ...any) *fault.Error {
	e := fault.Invalidf("%s:%d:%d: %s", r.name, n.Line, n.Column, fmt.Sprintf(format, args...)).At(path)
	if len(r.bad) < maxBad {
		r.bad = append(r.bad, e)
	}
	return e
}

// resolve returns what a node stands for, nil where no more may be read.
func (r *reader) resolve(n *yaml.Node, path string) *yaml.Node {
	for n.Kind == yaml.AliasNode && r.left > 0 {
		r.left--
		n = n.Alias
	}
	if r.left--; r.left < 0 {
		if r.left == -1 {
			r.fault(n, path, "all aliases replaced, the file has more than %d parts", maxNodes).Help("use fewer aliases, or divide it into several files")
		}
		return nil
	}
	return n
}

// value reads a node into v.
func (r *reader) value(n *yaml.Node, v reflect.Value, path string, f field) {
	if n = r.resolve(n, path); n == nil {
		return
	}
	if _, known := r.at[path]; !known {
		r.at[path] = position{n.Line, n.Column}
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		r.fault(n, path, "it has no value").Help("write one, or leave the field out; an empty text is \"\"")
		return
	}
	if q, ok := quantities[v.Type()]; ok {
		r.quantity(n, v, path, q)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(n, v.Elem(), path, field{kind: v.Type().Elem(), tag: f.tag})
	case reflect.Struct:
		if !r.short(n, v, path) {
			r.structure(n, v, path)
		}
	case reflect.Slice:
		r.list(n, v, path, f)
	case reflect.Map:
		r.mapping(n, v, path, f)
	default:
		r.scalar(n, v, path, f)
	}
}

// quantity reads a size, a number of processors or a time.
func (r *reader) quantity(n *yaml.Node, v reflect.Value, path string, q quantity) {
	text, ok := r.text(n, path, q.what)
	if !ok {
		return
	}
	got, err := q.read(text)
	if err == nil && got < 0 {
		err = fault.Invalidf("%q is less than nothing", text).Help("write %s", q.what)
	}
	if err != nil {
		r.tell(n, path, err)
		return
	}
	v.SetInt(got)
}

// tell notes the faults that another reader found in a node's text.
func (r *reader) tell(n *yaml.Node, path string, err error) {
	for _, one := range fault.All(err) {
		r.fault(n, path, "%s", one.Message).Hint = one.Hint
	}
}

// text returns a scalar as it was written.
func (r *reader) text(n *yaml.Node, path, want string) (string, bool) {
	plain := n.Kind == yaml.ScalarNode && slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!timestamp"}, n.Tag)
	if !plain {
		r.fault(n, path, "%s stands where %s belongs", kindText(n), want)
	}
	return n.Value, plain
}

func kindText(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return fmt.Sprintf("%s %s", n.Tag, clip(n.Value))
}

// clip shortens what others wrote, for a message.
func clip(text string) string {
	if len(text) > 60 {
		text = strings.ToValidUTF8(text[:60], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}

// structure reads a mapping whose keys are fields.
func (r *reader) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "%s stands where a mapping belongs", kindText(n)).Help("its fields are: %s", strings.Join(keys(fieldsOf(v.Type())), ", "))
		return
	}
	fields := fieldsOf(v.Type())
	given := map[string]bool{}
	for _, p := range r.pairs(n, path, maxMerge) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == p.key.Value })
		switch {
		case i >= 0:
			given[p.key.Value] = true
			r.value(p.value, v.FieldByIndex(fields[i].index), under(path, p.key.Value), fields[i])
		case path == "" && strings.HasPrefix(p.key.Value, "x-"): // what aliases are taken from
		default:
			r.unknown(p.key, path, fields)
		}
	}
	for _, f := range fields {
		if f.required && !given[f.key] {
			r.fault(n, under(path, f.key), "%s is missing", f.key).Help("%s", f.tag.Get("doc"))
		}
	}
}

// unknown says which fields a key may have been meant for.
func (r *reader) unknown(k *yaml.Node, path string, fields []field) {
	of := "a file"
	if path != "" {
		of = path
	}
	e := r.fault(k, under(path, k.Value), "%s is not a field of %s", clip(k.Value), of)
	if names := nearest(key(k.Value), keys(fields)); len(names) > 0 {
		e.Help("nearest: %s", strings.Join(names, ", "))
		return
	}
	e.Help("accepted: %s", strings.Join(keys(fields), ", "))
}

// nearest returns the names that word may have been meant for, best first.
func nearest(word string, names []string) []string {
	var found []string
	limit := max(2, len(word)/3)
	for off := 0; off <= limit && len(word) <= 64; off++ {
		for _, name := range names {
			if near.Distance(word, name) == off {
				found = append(found, name)
			}
		}
	}
	return found[:min(len(found), 3)]
}

func keys(fields []field) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	return names
}

func under(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// pair is a key of a mapping with its value.
type pair struct{ key, value *yaml.Node }

// pairs returns what a mapping has, with what it merges (<<), which its own keys win over.
func (r *reader) pairs(n *yaml.Node, path string, depth int) []pair {
	var own, merged []pair
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k = r.resolve(k, path); k == nil {
			return own
		}
		if k.Tag == "!!merge" {
			merged = append(merged, r.merge(v, path, depth)...)
			continue
		}
		if k.Kind != yaml.ScalarNode {
			r.fault(k, path, "%s stands where a field's name belongs", kindText(k))
			continue
		}
		if line, twice := seen[k.Value]; twice {
			r.fault(k, under(path, k.Value), "%s stands here a second time, first in line %d", clip(k.Value), line)
			continue
		}
		seen[k.Value] = k.Line
		own = append(own, pair{k, v})
	}
	for _, p := range merged {
		if _, has := seen[p.key.Value]; !has {
			seen[p.key.Value] = p.key.Line
			own = append(own, p)
		}
	}
	return own
}

// merge returns what stands behind a merge key: one mapping, or several of which the first wins.
func (r *reader) merge(n *yaml.Node, path string, depth int) []pair {
	if n = r.resolve(n, path); n == nil {
		return nil
	}
	if depth == 0 {
		r.fault(n, path, "more than %d mappings are merged into one another", maxMerge)
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return r.pairs(n, path, depth-1)
	case yaml.SequenceNode:
		var all []pair
		for _, one := range n.Content {
			all = append(all, r.merge(one, path, depth-1)...)
		}
		return all
	}
	r.fault(n, path, "%s stands where a mapping to merge belongs", kindText(n))
	return nil
}
