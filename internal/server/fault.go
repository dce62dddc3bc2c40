package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// answer is a fault as huma wants it. Its JSON is api.Error's.
type answer struct {
	wire   api.Error
	status int
}

func (a *answer) GetStatus() int               { return a.status }
func (a *answer) Error() string                { return a.wire.Message }
func (a *answer) MarshalJSON() ([]byte, error) { return json.Marshal(a.wire) }

// Wire returns err as the wire has it: its first fault, with the others below it.
func Wire(err error) api.Error {
	var first api.Error
	for i, f := range fault.All(err) {
		one := api.Error{Kind: f.Kind.String(), Message: f.Message, Field: f.Field, Hint: f.Hint}
		if i == 0 {
			first = one
		} else {
			first.Also = append(first.Also, one)
		}
	}
	return first
}

func answerOf(err error) *answer {
	return &answer{wire: Wire(err), status: fault.KindOf(err).HTTP()}
}

// writeFault answers a request that is not huma's.
func writeFault(w http.ResponseWriter, err error) {
	a := answerOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.wire)
}

// ownFaults makes huma speak strata's errors. huma keeps this, and the
// strictness of field names, in variables of its package.
var ownFaults = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return fromHuma(nil, status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return fromHuma(ctx, status, msg, errs)
	}
})

// unreadable is what huma says of a body that ends before its length does.
const unreadable = "cannot read request body"

// fromHuma turns what huma found, or what a handler returned, into an answer.
func fromHuma(ctx huma.Context, status int, msg string, errs []error) *answer {
	var all []error
	if msg == unreadable {
		errs = []error{fault.Invalidf("the request's body broke off: %w", errors.Join(errs...)).At("body")}
	}
	for _, err := range errs {
		if err == nil {
			continue
		}
		if d, ok := err.(*huma.ErrorDetail); ok {
			all = append(all, refused(ctx, d))
		} else {
			all = append(all, err)
		}
	}
	if len(all) == 0 && status == http.StatusRequestEntityTooLarge {
		all = append(all, fault.Invalidf("the request is too large: it has more than %s", unit.Size(maxBody)).
			Help("put what is large into a file, and show that inside"))
	}
	if len(all) == 0 {
		kind := fault.Internal
		if status >= 400 && status < 500 {
			kind = fault.Invalid
		}
		all = append(all, fault.New(kind, "%s", msg))
	}
	return answerOf(fault.Join(all...))
}

// How to write the values of types that are read as numbers or text.
var writeAs = map[string]string{
	"size":     "write a number with K, M, G or T, such as 512M or 10G",
	"cpus":     "write a number of processors, such as 0.5 or 2",
	"duration": "write a number with s, m or h, such as 10s or 1m30s",
}

// refused puts one complaint of huma's validation into strata's words.
func refused(ctx huma.Context, d *huma.ErrorDetail) *fault.Error {
	where, field, _ := strings.Cut(d.Location, ".")
	if field == "" {
		field = where
	}
	schema := schemaAt(ctx, where, field)
	switch {
	case d.Message == "unexpected property":
		f := fault.Invalidf("there is no such field").At(field)
		parent, _, nested := cutLast(field)
		if !nested {
			parent = ""
		}
		if known := fieldsOf(ctx, schemaAt(ctx, where, parent)); len(known) > 0 {
			f.Help("known fields are %s", strings.Join(known, ", "))
		}
		return f
	case d.Message == "unknown query parameter":
		return fault.Invalidf("there is no such query parameter").At(field).Help("%s", knownParameters(ctx))
	case schema != nil && writeAs[schema.Title] != "" && strings.HasPrefix(d.Message, "expected"):
		return fault.Invalidf("%s is not a %s", show(d.Value), schema.Title).At(field).Help("%s", writeAs[schema.Title])
	case where == "body" && field == "body" && !strings.HasPrefix(d.Message, "expected required"):
		return fault.Invalidf("the request's body cannot be read: %s", d.Message).At(field).Help("send one JSON object")
	}
	message := strings.TrimPrefix(d.Message, "expected ")
	if message == d.Message {
		return fault.Invalidf("%s", message).At(field)
	}
	if name, ok := strings.CutPrefix(message, "required property "); ok {
		name = strings.TrimSuffix(name, " to be present")
		if where == "body" && field != "body" {
			name = field + "." + name
		}
		return fault.Invalidf("it is required").At(name)
	}
	return fault.Invalidf("%s is not accepted", show(d.Value)).At(field).Help("accepted: %s", accepted(message))
}

// accepted shortens huma's description of what it wanted.
func accepted(message string) string {
	if list, ok := strings.CutPrefix(message, "value to be one of "); ok {
		return strings.Trim(list, `"`)
	}
	bound := message[strings.LastIndexByte(message, ' ')+1:]
	if n, err := strconv.ParseFloat(bound, 64); err == nil { // a large one comes as a power of ten
		return strings.TrimSuffix(message, bound) + strconv.FormatFloat(n, 'f', -1, 64)
	}
	return message
}

// show writes a value for a message, bounded.
func show(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		text = fmt.Append(nil, v)
	}
	if len(text) > 80 {
		return string(text[:77]) + "..."
	}
	return string(text)
}

// cutLast splits path at its last dot.
func cutLast(path string) (before, after string, found bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// schemaAt finds the schema of a field of the body; nil where there is none.
func schemaAt(ctx huma.Context, where, path string) *huma.Schema {
	if ctx == nil || where != "body" || ctx.Operation() == nil || ctx.Operation().RequestBody == nil {
		return nil
	}
	media := ctx.Operation().RequestBody.Content["application/json"]
	if media == nil {
		return nil
	}
	s := resolve(ctx, media.Schema)
	if path == "" || path == "body" {
		return s
	}
	for part := range strings.SplitSeq(path, ".") {
		name, _, list := strings.Cut(part, "[")
		if s == nil {
			return nil
		}
		s = resolve(ctx, s.Properties[name])
		if list && s != nil {
			s = resolve(ctx, s.Items)
		}
	}
	return s
}

// registryKey is where a request's context has the schemas.
type registryKey struct{}

func resolve(ctx huma.Context, s *huma.Schema) *huma.Schema {
	if s == nil || s.Ref == "" {
		return s
	}
	r, _ := ctx.Context().Value(registryKey{}).(huma.Registry)
	if r == nil {
		return nil
	}
	return r.SchemaFromRef(s.Ref)
}

func fieldsOf(ctx huma.Context, s *huma.Schema) []string {
	if s = resolve(ctx, s); s == nil {
		return nil
	}
	var names []string
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func knownParameters(ctx huma.Context) string {
	var names []string
	if ctx != nil && ctx.Operation() != nil {
		for _, p := range ctx.Operation().Parameters {
			if p.In == "query" {
				names = append(names, p.Name)
			}
		}
	}
	if len(names) == 0 {
		return "this route takes none"
	}
	slices.Sort(names)
	return "known ones are " + strings.Join(names, ", ")
}
