package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

func TestFind(t *testing.T) {
	name := require.Tool(t, "qemu-system-x86_64")
	p, err := Find(t.Context())
	if err != nil || p.Path != name || p.Version == "" || p.Firmware == "" {
		t.Fatalf("got %+v, %v", p, err)
	}
	t.Logf("%+v", p)
	if again, err := Find(t.Context()); err != nil || again != p {
		t.Errorf("asked again, it is %+v, %v", again, err)
	}
}

func TestAQEMUThatWillNotDoIsRefusedByName(t *testing.T) {
	for sentence, c := range map[string]struct{ script, want string }{
		"none at all":          {"", "which is not installed"},
		"one too old":          {"echo QEMU emulator version 5.2.0", "is QEMU 5.2.0; guests need 6.2 or newer"},
		"one that fails":       {"exit 1", "does not say its version"},
		"one without microvm":  {`[ $1 = --version ] && echo QEMU emulator version 9.0.0 || echo "pc  PC"`, `knows no machine "microvm"`},
		"something else there": {"echo hello", "does not look like QEMU"},
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := t.TempDir()
			t.Setenv("PATH", dir+":/bin")
			if c.script != "" {
				if err := os.WriteFile(filepath.Join(dir, packages["amd64"][0]), []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			} else {
				t.Setenv("PATH", dir)
			}
			_, err := Find(t.Context())
			if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), c.want) || fault.All(err)[0].Hint == "" && c.script != "echo hello" {
				t.Errorf("got %v, hint %q", err, fault.All(err)[0].Hint)
			}
		})
	}
}
