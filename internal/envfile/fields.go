package envfile

import (
	"math"
	"reflect"
	"strconv"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/unit"
)

// field is one field of a structure, as files have it.
type field struct {
	key      string
	index    []int
	kind     reflect.Type
	tag      reflect.StructTag
	required bool
}

// key is a field's name in files.
func key(json string) string { return strings.ReplaceAll(json, "_", "-") }

// fieldsOf lists what a structure has in files: its json names, in order, embedded ones as their own.
func fieldsOf(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		switch {
		case f.Anonymous:
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				all = append(all, inner)
			}
		case f.IsExported():
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			required := options == "" || f.Name == "Name" && t == reflect.TypeFor[api.Spec]()
			all = append(all, field{key: key(name), index: []int{i}, kind: f.Type, tag: f.Tag, required: required})
		}
	}
	return all
}

// words of a tag such as enum, nil where there is none.
func (f field) enum() []string {
	if text := f.tag.Get("enum"); text != "" {
		return strings.Split(text, ",")
	}
	return nil
}

// bound is a tag that holds a number.
func (f field) bound(tag string) (int64, bool) {
	n, err := strconv.ParseInt(f.tag.Get(tag), 10, 64)
	return n, err == nil
}

// bounds are the least and the most that a whole number of type t may be.
func (f field) bounds(t reflect.Type) (low, high int64) {
	low, high = math.MinInt64, math.MaxInt64
	switch t.Kind() {
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		low, high = 0, 1<<t.Bits()-1
	}
	if least, ok := f.bound("minimum"); ok {
		low = max(low, least)
	}
	if most, ok := f.bound("maximum"); ok {
		high = min(high, most)
	}
	return low, high
}

// itemTag bounds what stands in lists, as the API's server does by the size of a request.
func itemTag(t reflect.Type) reflect.StructTag {
	if t.Kind() == reflect.String {
		return `maxLength:"131072"` // linux/binfmts.h, MAX_ARG_STRLEN
	}
	return ""
}

// quantity is a type that is written as text and read by package unit.
type quantity struct {
	what    string
	pattern string // of the schema
	most    int64  // where it is written as a number; 0: no bound
	read    func(text string) (int64, error)
	write   func(v int64) string
}

var quantities = map[reflect.Type]quantity{
	reflect.TypeFor[unit.Size](): {
		what: "a size in bytes, such as 512M or 10G", pattern: `^[0-9]+(\.[0-9]+)?([KMGTPkmgtp]([Ii]?[Bb])?|[Bb])?$`,
		read:  func(text string) (int64, error) { v, err := unit.ParseSize(text); return int64(v), err },
		write: sizeText,
	},
	reflect.TypeFor[unit.CPUs](): {
		what: "a number of processors, such as 0.5", pattern: `^[0-9]+(\.[0-9]+)?$`, most: unit.MaxCPUs,
		read:  func(text string) (int64, error) { v, err := unit.ParseCPUs(text); return int64(v), err },
		write: func(v int64) string { return unit.CPUs(v).String() },
	},
	reflect.TypeFor[unit.Duration](): {
		what: "a time, such as 10s or 1m30s", pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^[0-9]+(\.[0-9]+)?$`,
		read:  func(text string) (int64, error) { v, err := unit.ParseDuration(text); return int64(v), err },
		write: func(v int64) string { return unit.Duration(v).String() },
	},
}

// sizeText writes a size exactly, with the largest unit that leaves it whole.
func sizeText(v int64) string {
	for _, u := range []struct {
		step int64
		name string
	}{{unit.PiB, "P"}, {unit.TiB, "T"}, {unit.GiB, "G"}, {unit.MiB, "M"}, {unit.KiB, "K"}} {
		if v >= u.step && v%u.step == 0 {
			return strconv.FormatInt(v/u.step, 10) + u.name
		}
	}
	return strconv.FormatInt(v, 10)
}
