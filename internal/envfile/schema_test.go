package envfile

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/strata-project/strata/internal/fault"
)

// validator checks YAML against the schema that is published, as an editor does.
func validator(t *testing.T) func(text string) error {
	t.Helper()
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("file:///strata.schema.json", schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("file:///strata.schema.json")
	if err != nil {
		t.Fatalf("the schema is none: %v", err)
	}
	return func(text string) error {
		var got any
		if err := yaml.Unmarshal([]byte(text), &got); err != nil {
			return err
		}
		wire, err := json.Marshal(got)
		if err != nil {
			return err
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(wire))
		if err != nil {
			return err
		}
		return compiled.Validate(value)
	}
}

func TestTheSchemaTakesWhatIsRead(t *testing.T) {
	valid := validator(t)
	e := full()
	e.DependsOn = nil
	written, err := (File{Project: "shop", Environments: []Entry{e}}).Write()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"the documentation's": example(t),
		"every field":         string(written),
		"short and long":      accepted,
		"x- fields":           "x-a: [1, {b: c}]\nenvironments:\n- {name: a, template: b}\n",
	} {
		if _, err := Read([]byte(text), "f", "/here"); err != nil {
			t.Errorf("%s is not read: %v\n%s", name, err, text)
		}
		if err := valid(text); err != nil {
			t.Errorf("%s is read, and not what the schema takes: %v\n%s", name, err, text)
		}
	}
}

// beyond says why a schema cannot tell some of the mistakes; "" is told by it.
var beyond = map[string]string{
	"a name twice":                 "it compares entries",
	"depends on nobody":            "it compares entries",
	"depends on itself":            "it compares entries",
	"waits for the end of service": "it compares entries",
	"depends on what never starts": "it compares entries",
	"two documents":                "it knows one",
	"binary":                       "it is text by then",
	"no template":                  "a system of its own takes none",
	"a bad port":                   "the short form is a text",
	"an unknown condition":         "the short form is a text",
}

func TestTheSchemaRefusesWhatIsWrong(t *testing.T) {
	valid := validator(t)
	for name, c := range mistakes {
		if _, err := Read([]byte(c.text), "f", "/here"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s is read: %v", name, err)
		}
		err := valid(c.text)
		if why := beyond[name]; why == "" && err == nil {
			t.Errorf("%s: the schema takes\n%s", name, c.text)
		} else if why != "" && err != nil {
			t.Errorf("%s: the schema tells it, though %s: %v", name, why, err)
		}
	}
	for name := range beyond {
		if _, ok := mistakes[name]; !ok {
			t.Errorf("%q is no mistake that is tried", name)
		}
	}
}

// TestAnUnknownFieldIsRefusedEverywhere: the schema sees one in every part of a file.
func TestAnUnknownFieldIsRefusedEverywhere(t *testing.T) {
	valid := validator(t)
	var spoil func(v any, text func() string)
	spoil = func(v any, text func() string) {
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				if key == "labels" || key == "env" || key == "sysctls" || strings.HasPrefix(key, "x-") {
					continue
				}
				spoil(inner, text)
			}
			v["zzz"] = 1
			if err := valid(text()); err == nil {
				t.Errorf("an unknown field is taken in\n%s", text())
			}
			delete(v, "zzz")
		case []any:
			for _, inner := range v {
				spoil(inner, text)
			}
		}
	}
	e := full()
	e.DependsOn = nil
	written, err := (File{Project: "shop", Environments: []Entry{e}}).Write()
	if err != nil {
		t.Fatal(err)
	}
	var whole map[string]any
	if err := yaml.Unmarshal(written, &whole); err != nil {
		t.Fatal(err)
	}
	spoil(whole, func() string {
		text, err := yaml.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	})
}

// TestTheSchemaAndTheReaderAgreeOnQuantities: each text is a size, a number of processors
// and a time for both, or for neither.
func TestTheSchemaAndTheReaderAgreeOnQuantities(t *testing.T) {
	valid := validator(t)
	texts := []string{"0", "1", "1.5", "512", "512M", "512m", "512MB", "512MiB", "512mib", "1.5g", "10B", "10b", "2t", "1P", "5X", "5BM", "-1", "-1M", "M", ".5", "1e3M", "1m30s", "10s", "10ms", "5d", "-5s", "0.5", "99999", "1..2", "abc", "\"\"", "\"512M\"", "\"1.5\""}
	for _, field := range []string{"resources: {memory: %s}", "resources: {cpus: %s}", "stop-grace: %s"} {
		for _, text := range texts {
			file := head + "  " + strings.Replace(field, "%s", text, 1) + "\n"
			_, read := Read([]byte(file), "f", "/")
			if schema := valid(file); (read == nil) != (schema == nil) {
				t.Errorf("%s\nreader: %v\nschema: %v", file, read, schema)
			}
		}
	}
}
