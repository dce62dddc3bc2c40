package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/strata-project/strata/internal/fault"
)

// formatFlag is --format, beside each --json: a template that is filled in with what
// that would print, for each member of a list by itself.
type formatFlag struct {
	a      *app
	asJSON pflag.Value // of the flag --json
	text   string
}

// addFormats gives every command below cmd that has --json a --format, too.
func (a *app) addFormats(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		a.addFormats(c)
	}
	flags := cmd.Flags()
	asJSON := flags.Lookup("json")
	if asJSON == nil || flags.Lookup("format") != nil { // of a disk image
		return
	}
	short := ""
	if cmd.HasAlias("inspect") { // as docker's
		short = "f"
	}
	flags.VarP(&formatFlag{a: a, asJSON: asJSON.Value}, "format", short, "print what --json has by a Go `template`, such as '{{.name}}'")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("format", cobra.NoFileCompletions))
}

func (f *formatFlag) String() string { return f.text }
func (f *formatFlag) Type() string   { return "template" }

// Set implements pflag.Value.
func (f *formatFlag) Set(text string) (err error) {
	functions := template.FuncMap{
		"json": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"join": func(list []any, between string) string {
			words := make([]string, len(list))
			for i, v := range list {
				words[i] = fmt.Sprint(v)
			}
			return strings.Join(words, between)
		},
	}
	spaced := strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	if f.a.format, err = template.New("format").Funcs(functions).Parse(spaced); err != nil {
		return err
	}
	f.text = text
	return f.asJSON.Set("true")
}

// fillIn prints a value, which is given as JSON, by the template of --format.
func (a *app) fillIn(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // sizes are long
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	for _, one := range list {
		var line strings.Builder
		if err := a.format.Execute(&line, printable(one)); err != nil {
			return fault.Invalidf("the template cannot be filled in: %w", err).At("format").Help("the names of fields are those that --json prints")
		}
		// What a value has not is left out of its JSON.
		fmt.Fprintln(a.out, strings.ReplaceAll(line.String(), "<no value>", ""))
	}
	return nil
}

// printable is a decoded value without what a terminal would act on.
func printable(v any) any {
	switch v := v.(type) {
	case string:
		return fault.Printable(v)
	case []any:
		for i := range v {
			v[i] = printable(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = printable(v[k])
		}
	}
	return v
}
