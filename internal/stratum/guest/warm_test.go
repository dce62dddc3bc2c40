package guest

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/stratum/held"
	"github.com/strata-project/strata/internal/stratum/virtual"
	"github.com/strata-project/strata/internal/unit"
)

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
