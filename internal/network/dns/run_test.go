package dns

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// runs starts Run for a folder with no networks, and returns what it said and how it ends.
func runs(ctx context.Context, t *testing.T, dir string) (said string, ended chan error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, NamesFile), Zone{}.Append(nil), 0o600); err != nil {
		t.Fatal(err)
	}
	ready, hand := io.Pipe()
	ended = make(chan error, 1)
	go func() { ended <- Run(ctx, Config{Dir: dir, Ready: hand}) }()
	said, err := bufio.NewReader(ready).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(said), ended
}

func wantEnd(t *testing.T, ended chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
}

func TestOneProcessForOneFolder(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	said, ended := runs(ctx, t, dir)
	if said != "ready" {
		t.Fatal(said)
	}
	if err := Run(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Error(err)
	}
	cancel()
	wantEnd(t, ended)
	if said, ended := runs(t.Context(), t, dir); said != "ready" {
		t.Error(said, <-ended)
	}
}

func TestItEndsWithItsFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	said, ended := runs(t.Context(), t, dir)
	if said != "ready" {
		t.Fatal(said)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, ended)
}
