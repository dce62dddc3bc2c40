package cli

import (
	"io"
	"regexp"
	"strings"
	"testing"
)

func TestWhatIsCalledOtherwiseElsewhereIsACommandHere(t *testing.T) {
	quoted := regexp.MustCompile("`strata ([^`]*)`")
	for word, here := range elsewhere {
		root := (&app{out: io.Discard, err: io.Discard}).command()
		if cmd, _, _ := root.Find([]string{word}); cmd != root {
			t.Errorf("%q is a command of strata", word)
		}
		all := quoted.FindAllStringSubmatch(here, -1)
		if len(all) == 0 {
			t.Errorf("%q names no command: %s", word, here)
		}
		for _, one := range all {
			cmd, args, err := root.Find(strings.Fields(one[1]))
			if cmd == root || err != nil {
				t.Errorf("%q: there is no `strata %s`", word, one[1])
				continue
			}
			for _, arg := range args {
				if len(arg) > 1 && arg[0] == '-' && cmd.Flags().ShorthandLookup(arg[1:2]) == nil {
					t.Errorf("%q: `strata %s` has no %s", word, one[1], arg)
				}
				if key, _, ok := strings.Cut(arg, "="); ok && !strings.Contains(cmd.Long, key) {
					t.Errorf("%q: `strata %s` has no key %s", word, one[1], key)
				}
			}
		}
	}
}

func TestFlagsThatAreCalledOtherwiseElsewhereAreFlagsHere(t *testing.T) {
	named := regexp.MustCompile("--([a-z-]+)")
	run, _, err := (&app{out: io.Discard, err: io.Discard}).command().Find([]string{"run"})
	if err != nil {
		t.Fatal(err)
	}
	for flag, here := range flagsElsewhere {
		if run.Flags().Lookup(flag) != nil {
			t.Errorf("run has --%s", flag)
		}
		if strings.HasPrefix(here, "`strata") {
			continue // a command of its own
		}
		for _, name := range named.FindAllStringSubmatch(here, -1) {
			if run.Flags().Lookup(name[1]) == nil {
				t.Errorf("--%s: run has no --%s", flag, name[1])
			}
		}
	}
}
