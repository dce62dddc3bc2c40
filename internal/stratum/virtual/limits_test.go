package virtual

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/resource/resourcetest"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
)

// weightOf is what the kernel has as a group's weight of processor time, in its own unit.
func weightOf(t *testing.T, g *resource.Group) string {
	t.Helper()
	for _, list := range g.ThreadFiles() {
		for _, file := range []string{"cpu.weight", "cpu.shares"} {
			if text, err := os.ReadFile(filepath.Join(filepath.Dir(list), "..", file)); err == nil {
				return strings.TrimSpace(string(text))
			}
		}
	}
	t.Fatal("it has no weight")
	return ""
}

func TestARunThatBeganAsASpareGetsItsShare(t *testing.T) {
	require.Root(t)
	groups := resourcetest.Open(t, fmt.Sprintf("strata-test-share-%d", os.Getpid()))
	d := &Driver{o: Options{Resources: groups}}
	var err error
	if d.Held, err = held.Open(t.TempDir(), groups, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	const spare, usual, renamed = place.SparePrefix + "one", "aaaaaaaaaaaa", "bbbbbbbbbbbb"
	weights := map[string]string{}
	for _, id := range []string{usual, spare} {
		if err := d.Held.Make(t.Context(), id, Notes{}); err != nil {
			t.Fatal(err)
		}
		g, err := groups.Create(t.Context(), id, resource.Limits{}, resource.DefaultDevices(), 0)
		if err != nil {
			t.Fatal(err)
		}
		weights[id] = weightOf(t, g)
	}
	if err := d.Held.Rename(t.Context(), spare, renamed, Notes{}); err != nil {
		t.Fatal(err)
	}
	for id, name := range map[string]string{usual: usual, renamed: spare} {
		if err := d.Share(id, stratum.Share{Weight: 700, Memory: -1}); err != nil {
			t.Fatal(err)
		}
		g, err := groups.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if now := weightOf(t, g); now == weights[name] {
			t.Errorf("the weight of %s is %s, as it was", id, now)
		}
	}
	if err := d.Share("cccccccccccc", stratum.Share{Weight: 700, Memory: -1}); err != nil {
		t.Errorf("of a run that is gone: %v", err)
	}
}
