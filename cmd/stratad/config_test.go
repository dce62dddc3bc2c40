package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
)

func TestConfigIsReadAndRefusedByLine(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want config
		says string
	}{
		"an empty file changes nothing":           {"", config{}, ""},
		"comments alone change nothing":           {"# standby: 3\n", config{}, ""},
		"spares are kept":                         {"standby: 16\n", config{Standby: 16}, ""},
		"a key that there is none of is refused":  {"standby: 1\nstandy: 2\n", config{}, "line 2: there is no key \"standy\""},
		"a key that is there twice is refused":    {"standby: 1\nstandby: 2\n", config{}, "line 2: standby is there twice"},
		"too many are refused":                    {"\nstandby: 17\n", config{}, "line 2: \"17\" is no number"},
		"fewer than none are refused":             {"standby: -1\n", config{}, "line 1: \"-1\" is no number"},
		"a word is no number":                     {"standby: two\n", config{}, "line 1: \"two\" is no number"},
		"no value is no number":                   {"standby:\n", config{}, "line 1: \"\" is no number"},
		"half a guest is no number":               {"standby: 1.5\n", config{}, "line 1: \"1.5\" is no number"},
		"a list is no configuration":              {"- standby\n", config{}, "line 1: a configuration is keys"},
		"what is not YAML is refused by its line": {"standby: 1\n\tx", config{}, "line 2"},
		"two documents are refused":               {"standby: 1\n---\nstandby: 2\n", config{}, "more than one document"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseConfig([]byte(c.text))
			if c.says == "" {
				if err != nil || got != c.want {
					t.Fatalf("%+v, %v", got, err)
				}
				return
			}
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %q", err, c.says)
			}
		})
	}
}

func TestConfigFileOfAPrivateRoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "strata.yaml")
	private := place.Places{Tag: "abcdef"}
	if c, err := readConfig("", private); err != nil || c != (config{}) {
		t.Fatalf("a private root reads nothing by itself: %+v, %v", c, err)
	}
	if _, err := readConfig(file, private); !fault.Is(err, fault.Missing) {
		t.Fatalf("a file that was asked for has to be there: %v", err)
	}
	if err := unix.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readConfig(file, private); !fault.Is(err, fault.Invalid) {
		t.Fatalf("a pipe is no configuration, nor waited for: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("standby: 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := readConfig(file, private); err != nil || c.Standby != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
}
