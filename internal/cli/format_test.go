package cli

import (
	"bytes"
	"testing"

	"github.com/strata-project/strata/internal/unit"
)

func TestAFormatIsFilledInWithWhatJSONHas(t *testing.T) {
	type made struct {
		Name string    `json:"name"`
		Size unit.Size `json:"size,omitempty"`
	}
	for format, want := range map[string]string{
		"{{.name}} {{.size}}":                "a?b 1099511627777\nc \n", // no exponent, nothing that a terminal acts on
		`{{.name}}\t{{if .size}}x\ny{{end}}`: "a?b\tx\ny\nc\t\n",
		"{{json .}}":                         `{"name":"a?b","size":1099511627777}` + "\n" + `{"name":"c"}` + "\n",
	} {
		var out bytes.Buffer
		a := &app{out: &out}
		ls := a.command()
		ls, _, err := ls.Find([]string{"ls"})
		if err != nil {
			t.Fatal(err)
		}
		if err := ls.Flags().Set("format", format); err != nil {
			t.Fatal(err)
		}
		if err := a.printJSON([]made{{"a\x1bb", unit.TiB + 1}, {Name: "c"}}); err != nil || out.String() != want {
			t.Errorf("%s prints %q, %v; want %q", format, out.String(), err, want)
		}
	}
}
