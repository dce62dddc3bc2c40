package envfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// Bounds of what is read.
const (
	MaxBytes = 1 << 20 // of a file
	maxNodes = 100_000 // that are read, each alias counted as what it stands for
	maxBad   = 50      // faults that are told
	maxMerge = 8       // mappings merged into one another
)

// File is a file that was read.
type File struct {
	Project      string    `json:"project,omitempty" maxLength:"63" doc:"What its environments are known by together: a label of each, and what --prune goes by."`
	Networks     []Network `json:"networks,omitempty" maxItems:"100" doc:"Networks as they should be; they are made before the environments."`
	Environments []Entry   `json:"environments" minItems:"1" maxItems:"1000" doc:"Environments as they should be."`

	name string
	at   map[string]position
}

// Entry is one environment as it should be.
type Entry struct {
	api.Spec
	DependsOn []Dependency `json:"depends_on,omitempty" maxItems:"64" doc:"Environments of the file that have to come before it: NAME or NAME:UNTIL."`
	Start     string       `json:"start,omitempty" enum:"always,once,never" doc:"always: apply starts it wherever it does not run. once: only if it has never run, for what does its work and ends. never: it is only made. Default: always."`
}

// Dependency is an environment that has to come before another.
type Dependency struct {
	Name  string `json:"name" maxLength:"63" doc:"Name of an environment of the same file."`
	Until string `json:"until,omitempty" enum:"started,ready,healthy,ended" doc:"started: it runs. ready: and has booted, and is well where it has a health check. healthy: it has one, and is well. ended: it has run, and ended with status 0. Default: ready."`
}

// What a Dependency waits until.
const (
	Started = "started"
	Ready   = "ready"
	Healthy = "healthy"
	Ended   = "ended"
)

// When an Entry is started.
const (
	Always = "always"
	Once   = "once"
	Never  = "never"
)

var ownLabels = api.FileLabels()

// position is where something stands in a file, both from 1 on.
type position struct{ line, column int }

// Read reads a file; relative sources of volumes are below dir, and faults call the file name.
// Kinds: Invalid, with all faults, each with its line and column.
func Read(text []byte, name, dir string) (File, error) {
	f := File{name: name, at: map[string]position{}}
	if len(text) > MaxBytes {
		return f, fault.Invalidf("%s is larger than %d bytes", name, MaxBytes).Help("divide it into several files")
	}
	root, err := document(text, name)
	if err != nil {
		return f, err
	}
	r := reader{name: name, dir: dir, at: f.at, left: maxNodes}
	r.value(root, reflect.ValueOf(&f).Elem(), "", field{})
	if len(r.bad) == 0 {
		r.check(&f)
	}
	return f, fault.Join(r.bad...)
}

// document returns the only document of a text.
func document(text []byte, name string) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	if err := d.Decode(&first); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fault.Invalidf("%s is empty", name).Help("write environments: and a list")
		}
		return nil, syntax(err, text, name)
	}
	switch err := d.Decode(&second); {
	case err == nil:
		return nil, fault.Invalidf("%s:%d:1: a second document begins here", name, second.Line).Help("write all environments into one list")
	case !errors.Is(err, io.EOF):
		return nil, syntax(err, text, name)
	}
	return first.Content[0], nil
}

// syntax says where a text is no YAML; the parser tells the line alone, so that the
// column is where that line's content begins.
func syntax(err error, text []byte, name string) error {
	message := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
	line, column := 1, 1
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		number, why, _ := strings.Cut(rest, ": ")
		if n, err := strconv.Atoi(number); err == nil {
			line, message = n, why
		}
	}
	lines := bytes.Split(text, []byte("\n"))
	if strings.Contains(message, "tab character") { // the parser tells where what it stands in begins
		for i := line - 1; i >= 0 && i < len(lines); i++ {
			indent := lines[i][:len(lines[i])-len(bytes.TrimLeft(lines[i], " \t"))]
			if tab := bytes.IndexByte(indent, '\t'); tab >= 0 {
				return fault.Invalidf("%s:%d:%d: it is no YAML: %s", name, i+1, tab+1, message).Help("indent with spaces")
			}
		}
	}
	if line <= len(lines) {
		column += len(lines[line-1]) - len(bytes.TrimLeft(lines[line-1], " \t"))
	}
	return fault.Invalidf("%s:%d:%d: it is no YAML: %s", name, line, column, message)
}

// Spec is what is asked of the API for an environment of the file.
func (f File) Spec(e Entry) api.Spec {
	spec := e.Spec
	spec.Resources = spec.Resources.Plain()
	labels := map[string]string{}
	for k, v := range spec.Labels {
		labels[k] = v
	}
	if f.Project != "" {
		labels[api.ProjectLabel] = f.Project
	}
	if len(e.DependsOn) > 0 {
		labels[api.DependsOnLabel] = dependsText(e.DependsOn)
	}
	if e.Start != "" && e.Start != Always {
		labels[api.StartLabel] = e.Start
	}
	if len(labels) > 0 {
		spec.Labels = labels
	}
	return spec
}

// Locate puts the place in the file before a fault of the environment called name, by the
// nearest field that the file has of what the fault is at. Other errors it returns as they are.
func (f File) Locate(name string, err error) error {
	return f.locate("environments", slices.IndexFunc(f.Environments, func(e Entry) bool { return e.Name == name }), err)
}

// locate puts the place of the nth entry of a list before err; -1: there is no such entry.
func (f File) locate(list string, n int, err error) error {
	var all []error
	for _, one := range fault.All(err) {
		if n >= 0 {
			one = f.place(fmt.Sprintf("%s[%d]", list, n), one)
		}
		all = append(all, one)
	}
	return fault.Join(all...)
}

func (f File) place(entry string, one *fault.Error) *fault.Error {
	path := entry
	if one.Field != "" {
		path += "." + key(one.Field)
	}
	at, ok := f.at[path]
	for near := path; !ok && near != ""; at, ok = f.at[near] {
		near = near[:max(0, strings.LastIndexAny(near, ".["))]
	}
	located := *one
	located.Message, located.Field = fmt.Sprintf("%s:%d:%d: %s", f.name, at.line, at.column, one.Message), path
	return &located
}
