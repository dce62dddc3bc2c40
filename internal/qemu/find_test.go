package qemu

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

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

func TestWhoGoesBeforeItAnswersSpoilsNothing(t *testing.T) {
	text, err := os.ReadFile(ringSetting)
	require.Host(t, "io_uring", err != nil || strings.TrimSpace(string(text)) == "0", "the host allows it to nobody")
	dir := t.TempDir()
	t.Setenv("PATH", dir+":/bin:/usr/bin")
	asked, answer := filepath.Join(dir, "asked"), filepath.Join(dir, "answer")
	script := `#!/bin/sh
case "$*" in
--version) echo QEMU emulator version 9.0.0;;
"-M help") echo "microvm  x";;
*) [ -e ` + answer + ` ] || { echo > ` + asked + `; exec sleep 60; };;
esac
`
	if err := errors.Join(unix.Mkfifo(asked, 0o600), os.WriteFile(filepath.Join(dir, packages[runtime.GOARCH][0]), []byte(script), 0o755)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		if _, err := os.ReadFile(asked); err != nil { // which waits for who writes
			t.Error(err)
		}
	}()
	if p, err := Find(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("who was gone is told %+v, %v", p, err)
	}
	if err := os.WriteFile(answer, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := Find(t.Context()); err != nil || !p.Ring {
		t.Errorf("the next is told %+v, %v", p, err)
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
