package foreign

import (
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/unit"
)

// TestMemoryOfAForeignSystem plugs memory into a machine whose system does not look at it.
func TestMemoryOfAForeignSystem(t *testing.T) {
	b := start(t)
	image := bootSector(t, deaf...)
	if out := b.Run("plan", "--memory", "32M", "--memory-max", "1G", "--disk-image", image); !strings.Contains(out, "memory to 1G") {
		t.Errorf("the plan: %s", out)
	}
	b.Run("run", "--name", "deaf", "--memory", "32M", "--memory-max", "1G", "--disk-image", image)
	has := func(when string, want unit.Size) {
		t.Helper()
		if e := show(t, b, "deaf"); e.Boot == nil || e.Boot.Memory != want || e.Boot.MostMemory != unit.GiB {
			t.Errorf("%s: %+v; want %s", when, e.Boot, want)
		}
	}
	has("as built", 32*unit.MiB)
	for what, c := range map[string]struct{ asked, says string }{
		"more than there is room for": {"memory=2G", "room for 1G"},
		"less than there is":          {"memory=16M", "grows only"},
		"a part of a piece":           {"memory=64M", "such as 160M"},
	} {
		if out := b.Try("set", "deaf", c.asked); out.Status == 0 || !strings.Contains(out.Stderr, c.says) {
			t.Errorf("%s: %+v", what, out)
		}
	}
	b.Run("set", "deaf", "memory=160M")
	has("grown", 160*unit.MiB)
	b.Run("set", "deaf", "memory=544M")
	has("grown again", 544*unit.MiB)
	if text := b.Run("show", "deaf"); !strings.Contains(text, "544M of memory (room for 1G)") {
		t.Errorf("show says\n%s", text)
	}
	b.Run("kill", "deaf")
	b.Run("start", "deaf")
	has("started anew, in one piece", 544*unit.MiB)
	b.Run("rm", "-f", "deaf")
	if out := b.Try("run", "--rm", "--stratum", "zone", "--memory-max", "1G", "busybox", "true"); out.Status == 0 || !strings.Contains(out.Stderr, "of the option --memory-max is not served") {
		t.Errorf("a zone: %+v", out)
	}
}
