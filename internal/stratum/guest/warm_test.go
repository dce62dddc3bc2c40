package guest

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu/warm"
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
		d.prepareSaved(key, &launch{})
		saved.Settle(t.Context())
	}
	if n := strings.Count(log.String(), "no system could be saved"); n != 1 {
		t.Errorf("it was tried %d times:\n%s", n, log.String())
	}
}
