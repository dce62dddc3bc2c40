package guest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/resource/resourcetest"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
	"github.com/strata-project/strata/internal/stratum/virtual"
	"github.com/strata-project/strata/internal/unit"
)

func TestTheLongestRootHasRoomForEverySocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "strg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var places place.Places
	for root := filepath.Join(dir, strings.Repeat("x", 100)); ; root = root[:len(root)-1] {
		if places, err = place.Find(root); err == nil {
			break
		}
	}
	for _, id := range []string{"0123456789ab", place.SparePrefix + place.Moment(), place.SavingPrefix + place.Moment()} {
		for _, name := range []string{held.Socket, virtual.ControlSocket, virtual.MonitorSocket} {
			path := filepath.Join(places.Run, place.Guests, id, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Errorf("%d bytes: %v", len(path), err)
				continue
			}
			l.Close()
		}
	}
}

func TestASystemThatCouldNotBeSavedIsNotTriedAtEveryStart(t *testing.T) {
	var log bytes.Buffer
	saved, err := warm.Open(t.TempDir(), warm.Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	runs, err := held.Open(t.TempDir(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(runs.Dir); err != nil { // no source gets a run folder
		t.Fatal(err)
	}
	d := &Driver{Driver: &virtual.Driver{Held: runs, Log: slog.New(slog.DiscardHandler), Life: t.Context()}, saved: saved}
	key := warm.Key{Memory: 8 * unit.MiB}
	for range 3 {
		d.prepareSaved(key, &launch{}, stratum.Plan{})
		saved.Settle(t.Context())
	}
	if n := strings.Count(log.String(), "no system could be saved"); n != 1 {
		t.Errorf("it was tried %d times:\n%s", n, log.String())
	}
}

func TestNobodyElseRunsAsTheUserOfASystemThatIsBeingSaved(t *testing.T) {
	require.Root(t)
	groups := resourcetest.Open(t, fmt.Sprintf("strata-test-saver-%d", os.Getpid()))
	dir, err := os.MkdirTemp("", "strg") // sockets below it want a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// In the place of the stage before QEMU: it tells the user that it was to become.
	told := filepath.Join(dir, "told")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, name := range []string{"strata-keeper", "strata-agent", "strata-vmagent", "strata-volume"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho $3 >>"+told+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	places, err := place.Find(filepath.Join(dir, "root"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Options{Places: places, Resources: groups})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.Agent = filepath.Join(dir, "strata-agent") // whatever is installed
	memory, err := os.Create(filepath.Join(dir, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	noted := map[string]bool{}
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), require.Patience(20*time.Second))
		met := make(chan struct{})
		go func() {
			defer close(met)
			defer cancel()
			for before := len(noted); len(noted) == before && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
				ids, _ := os.ReadDir(d.Held.Dir)
				text, _ := os.ReadFile(told)
				if len(ids) != 1 || strings.Count(string(text), "\n") == before {
					continue
				}
				var n virtual.Notes
				if d.Held.Notes(ids[0].Name(), &n) == nil {
					noted[fmt.Sprint(n.User)] = true
				}
			}
		}()
		l := &launch{Launch: &virtual.Launch{QEMU: qemu.Program{Path: "/usr/bin/qemu"}}}
		l.Hardware = l
		_, err := d.source(ctx, l, memory)
		cancel()
		<-met
		if err == nil || ctx.Err() != context.Canceled || len(noted) == 0 {
			t.Fatalf("%v, %v", err, noted)
		}
	}
	text, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range strings.Fields(string(text)) {
		if id, err := strconv.Atoi(user); err != nil || id < 0x3fff0000 || id >= 1<<30 || !noted[user] {
			t.Errorf("it runs as %s, and those that others leave alone are %v", user, noted)
		}
	}
}
