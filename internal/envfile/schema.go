package envfile

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"

	"github.com/strata-project/strata/api"
)

// object is a part of a JSON schema. Keys are sorted when it is written.
type object = map[string]any

// Schema returns the JSON schema (draft 2020-12) of environment files, made from the types.
func Schema() []byte {
	s := schemaOf(reflect.TypeFor[File](), field{})
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "strata environment file"
	s["patternProperties"] = object{"^x-": object{"description": "Not read: a place for what aliases stand for."}}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("envfile: a schema of plain words cannot be written: " + err.Error())
	}
	return append(text, '\n')
}

func schemaOf(t reflect.Type, f field) object {
	s := object{}
	if doc := f.tag.Get("doc"); doc != "" {
		s["description"] = doc
	}
	if q, ok := quantities[t]; ok {
		number := object{"type": "number", "minimum": 0}
		if q.most != 0 {
			number["maximum"] = q.most
		}
		s["anyOf"] = []object{{"type": "string", "pattern": q.pattern}, number}
		return s
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), f)
	case reflect.Struct:
		structSchema(t, s)
	case reflect.Slice:
		listSchema(t, f, s)
	case reflect.Map:
		s["type"], s["additionalProperties"] = "object", text(field{tag: `maxLength:"4096"`})
		if f.key == "labels" {
			s["propertyNames"] = object{"not": object{"enum": ownLabels}}
		}
	case reflect.Bool:
		s["type"] = "boolean"
	case reflect.String:
		for k, v := range text(f) {
			s[k] = v
		}
	default:
		s["type"] = "integer"
		low, high := f.bounds(t)
		if low != math.MinInt64 {
			s["minimum"] = low
		}
		if high != math.MaxInt64 {
			s["maximum"] = high
		}
	}
	return s
}

// text is what stands for text: numbers and truths are taken as they are written.
func text(f field) object {
	if words := f.enum(); words != nil {
		return object{"enum": words}
	}
	s := object{"type": []string{"string", "number", "boolean"}}
	if most, ok := f.bound("maxLength"); ok {
		s["maxLength"] = most
	}
	return s
}

func structSchema(t reflect.Type, s object) {
	properties, required := object{}, []string{}
	for _, f := range fieldsOf(t) {
		properties[f.key] = schemaOf(f.kind, f)
		if names[t] == f.key {
			properties[f.key].(object)["pattern"] = namePattern
		}
		if f.required {
			required = append(required, f.key)
		}
	}
	whole := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		whole["required"] = required
	}
	if slices.Contains(shortTypes, t) {
		s["anyOf"] = []object{{"type": "string"}, whole}
		return
	}
	for k, v := range whole {
		s[k] = v
	}
}

// names are the fields by which what a file describes is called.
var names = map[reflect.Type]string{reflect.TypeFor[File](): "project", reflect.TypeFor[Entry](): "name", reflect.TypeFor[Network](): "name"}

// namePattern is what label takes.
const namePattern = `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`

// shortTypes may be written in one word.
var shortTypes = []reflect.Type{reflect.TypeFor[api.Port](), reflect.TypeFor[api.Volume](), reflect.TypeFor[api.Tmpfs](), reflect.TypeFor[api.Restart](), reflect.TypeFor[Dependency]()}

func listSchema(t reflect.Type, f field, s object) {
	list := object{"type": "array", "items": schemaOf(t.Elem(), field{tag: itemTag(t.Elem())})}
	for _, tag := range []string{"minItems", "maxItems"} {
		if n, ok := f.bound(tag); ok {
			list[tag] = n
		}
	}
	if f.key == "env" {
		s["anyOf"] = []object{list, {"type": "object", "additionalProperties": text(field{tag: itemTag(t.Elem())})}}
		return
	}
	for k, v := range list {
		s[k] = v
	}
}
