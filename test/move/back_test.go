package move

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

const qemu = "qemu-system-x86_64"

// replaceable has the beds that follow find QEMU by a link. breaks has that lead to a
// program that fails.
func replaceable(t *testing.T) (breaks func()) {
	t.Helper()
	require.Machines(t)
	dir, works, fails := openFolder(t), require.Tool(t, qemu), require.Tool(t, "false")
	lead := func(to string) {
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := os.Symlink(to, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, qemu)); err != nil {
			t.Fatal(err)
		}
	}
	lead(works)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() { lead(fails) }
}

// TestAMoveWhoseQEMUBreaksGoesBack breaks it once the environment has begun to stop, and
// holds that it runs where it was, with what it had written. No machine boots.
func TestAMoveWhoseQEMUBreaksGoesBack(t *testing.T) {
	breaks := replaceable(t)
	b := newBed(t, bed.Kernel)
	volume := openFolder(t)
	b.Run("run", "-d", "--name", "slow", "-v", volume+":/volume", "--stop-timeout", "10m", "busybox", "sh", "-c",
		`trap 'touch /volume/asked; while [ ! -e /volume/go ]; do sleep 0.1; done; exit 0' TERM; while :; do sleep 0.1; done`)
	b.Run("exec", "slow", "sh", "-c", "echo kept > /kept")
	l := begin(t, b, "slow", "cat /kept; "+limitsInside)
	ended := make(chan bed.Output, 1)
	go func() { ended <- b.Try("move", "slow", "guest") }()
	until(t, "it was asked to end", func() bool {
		_, err := os.Stat(filepath.Join(volume, "asked"))
		return err == nil
	})
	breaks()
	if out := b.Try("move", "slow", "machine"); out.Status != 6 || !strings.Contains(out.Stderr, "being moved to guest") {
		t.Errorf("a second move: exit status %d\n%s", out.Status, out.Stderr)
	}
	if err := os.WriteFile(filepath.Join(volume, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out := <-ended; out.Status != 5 || !strings.Contains(out.Stderr, "back at stratum zone and runs") {
		t.Errorf("exit status %d\n%s", out.Status, out.Stderr)
	}
	l.same("zone")
	if got := show(t, b, "slow").Moves; len(got) != 1 || !strings.Contains(got[0].Failed, qemu) {
		t.Errorf("the history says %+v", got)
	}
	if keepers, machines := held(t, l.before.ID); keepers != 1 || machines != 0 {
		t.Errorf("%d keepers and %d QEMUs of it run", keepers, machines)
	}
	b.Run("rm", "-f", "slow")
}
