package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/unit"
)

func TestTheHistoryHasALineForEachMove(t *testing.T) {
	for name, c := range map[string]struct {
		move api.Move
		want string
	}{
		"it stood still":         {api.Move{From: "zone", To: "guest"}, " from zone to guest"},
		"it ran":                 {api.Move{From: "zone", To: "guest", Downtime: unit.Duration(1500 * time.Millisecond)}, " from zone to guest, down for 1.5s"},
		"by force":               {api.Move{From: "guest", To: "zone", Forced: true}, " from guest to zone, by force"},
		"it failed for two":      {api.Move{From: "zone", To: "guest", Failed: "killed\nit took too long"}, " from zone to guest, failed and went back: killed; it took too long"},
		"another daemon went on": {api.Move{From: "zone", To: "guest", Settled: true}, " from zone to guest, brought to its end by a later daemon"},
	} {
		t.Run(name, func(t *testing.T) {
			got := moveLine(c.move)
			if _, rest, _ := strings.Cut(got, " "); " "+rest != c.want {
				t.Errorf("%q; want a time and %q", got, c.want)
			}
		})
	}
}
