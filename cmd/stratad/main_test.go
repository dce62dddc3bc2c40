package main

import (
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
)

func TestWhatTheCommandLineIsAnsweredWith(t *testing.T) {
	for name, c := range map[string]struct {
		args        string
		status      int
		out, errors string
	}{
		"help is what was asked for":   {"--help", 0, usage, ""},
		"a flag that there is none of": {"--bogus", fault.Invalid.Exit(), "", "stratad: flag provided but not defined: -bogus\n  hint: see `stratad --help`\n"},
		"an argument too many":         {"extra", fault.Invalid.Exit(), "", "stratad: \"extra\" is one argument too many\n  hint: see `stratad --help`\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errors strings.Builder
			if status := run(strings.Fields(c.args), &out, &errors); status != c.status || out.String() != c.out || errors.String() != c.errors {
				t.Errorf("%d\n%s\n%s", status, &out, &errors)
			}
		})
	}
}
