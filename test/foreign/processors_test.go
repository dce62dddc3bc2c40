package foreign

import (
	"runtime"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/require"
)

// TestProcessorsOfAForeignSystem plugs one into a machine whose system knows of none: it is
// there, and stays where nobody inside lets go of it, whatever the limit is then.
func TestProcessorsOfAForeignSystem(t *testing.T) {
	require.Host(t, "two processors", runtime.NumCPU() >= 2, "a board has room for as many as the host has")
	b := start(t)
	image := bootSector(t, deaf...)
	b.Run("run", "--name", "deaf", "--memory", "32M", "--cpus", "1", "--disk-image", image)
	has := func(when string, want int) {
		t.Helper()
		e := show(t, b, "deaf")
		if e.Boot == nil || e.Boot.CPUs != want || e.Boot.MostCPUs < 2 {
			t.Errorf("%s: %+v; want %d processors", when, e.Boot, want)
		}
	}
	has("as built", 1)
	b.Run("set", "deaf", "cpus=2", "cpu.weight=200")
	has("grown", 2)
	if text := b.Run("show", "deaf"); !strings.Contains(text, "2 processors") {
		t.Errorf("show says\n%s", text)
	}
	if out := b.Try("set", "deaf", "memory=64M"); out.Status != 4 || !strings.Contains(out.Stderr, "stop it first") {
		t.Errorf("more memory: %+v", out)
	}
	if out := b.Try("set", "deaf", "cpus=200"); out.Status != 4 || !strings.Contains(out.Stderr, "room for") {
		t.Errorf("more processors than there is room for: %+v", out)
	}
	b.Run("set", "deaf", "cpus=1")
	if e := show(t, b, "deaf"); e.Spec.Resources.CPUs != 1000 || (e.Boot.Accelerator == qemu.TCG) != (e.Boot.CPUs == 2) {
		t.Errorf("with a lower limit: %+v", e.Boot)
	}
	b.Run("kill", "deaf")
	b.Run("start", "deaf")
	has("started anew", 1)

	b.Run("run", "--name", "dos", "--os", "dos", "--memory", "32M", "--disk-image", image)
	if out := b.Try("set", "dos", "cpus=2"); out.Status != 4 || !strings.Contains(out.Stderr, "takes none while it runs") {
		t.Errorf("a processor for a pc: %+v", out)
	}
	b.Run("rm", "-f", "deaf", "dos")
}
