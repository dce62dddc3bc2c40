package move

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// smallDisk mounts an ext4 of so many MiB, and returns its folder. Its path is short: sockets
// lie below it.
func smallDisk(t *testing.T, mib string) string {
	t.Helper()
	require.Root(t)
	image := filepath.Join(t.TempDir(), "disk")
	dir, err := os.MkdirTemp("", "st")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	for _, args := range [][]string{{"truncate", "-s", mib + "M", image}, {"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fill leaves no byte of the file system of dir. What it returns gives them back.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size >>= 4 {
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("fill the disk: %v", err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}
}

// slow is a main program that ends at TERM, but not before its volume has the file go.
const slow = `trap 'touch /volume/asked; while [ ! -e /volume/go ]; do sleep 0.1; done; exit 0' TERM; while :; do sleep 0.1; done`

// TestADiskThatFillsUpInTheMiddleOfAMove fills the disk with all that strata has on it, once the
// environment has been asked to end. It then runs at one stratum, with another daemon as well, and
// when there is room again it has what was written.
func TestADiskThatFillsUpInTheMiddleOfAMove(t *testing.T) {
	require.Machines(t)
	require.Tool(t, qemu)
	small := smallDisk(t, "768")
	b := bed.NewIn(t, small)
	bed.Kernel(t, b)
	volume := openFolder(t)
	b.Run("run", "-d", "--name", "slow", "-v", volume+":/volume", "--stop-timeout", "20s", "busybox", "sh", "-c", slow)
	b.Run("exec", "slow", "sh", "-c", "head -c 4000000 /dev/urandom > /kept; sync")
	l := begin(t, b, "slow", "sha256sum /kept; "+diskAndCard)

	empty := fill(t, small) // before anything of guests was made
	if out := b.Try("move", "slow", "guest"); out.Status != 6 || !strings.Contains(out.Stderr, "full") {
		t.Errorf("a disk without room for what guests take: exit status %d\n%s", out.Status, out.Stderr)
	}
	if now := show(t, b, "slow"); now.Started == nil || !now.Started.Equal(*l.before.Started) || len(now.Moves) != 0 {
		t.Errorf("it was stopped: %+v", now)
	}
	l.same("zone")
	empty()

	for _, to := range []string{"guest", "zone"} {
		from := show(t, b, "slow").Stratum
		if from == to { // the last one went back
			continue
		}
		out, empty := fillsDuring(t, b, small, volume, to)
		whileFull := show(t, b, "slow")
		t.Logf("%s to %s on a full disk: exit status %d, it is at %s: %s", from, to, out.Status, whileFull.Stratum, out.Stderr)
		switch {
		case out.Status == 0 && whileFull.Stratum == to:
		case out.Status != 0 && whileFull.Stratum == from && strings.Contains(out.Stderr, "back at stratum "+from+" and runs"):
		default:
			t.Errorf("it is at %s, and this was told: exit status %d\n%s", whileFull.Stratum, out.Status, out.Stderr)
		}
		b.SignalDaemon(syscall.SIGKILL, true)
		b.StartDaemon()
		if l.runsOnce() == "guest" { // still full
			goesOnWithRoom(l, empty)
		} else {
			empty()
		}
		b.SignalDaemon(syscall.SIGKILL, true)
		b.StartDaemon()
		l.settled()
		b.Run("exec", "slow", "sh", "-c", "echo more > /more && sync && grep more /more && rm /more")
	}
	noRoomForTheNewStart(l, volume)
	b.Run("rm", "-f", "slow")
}

// goesOnWithRoom has a guest write more than there is room for. It stands still until there is.
func goesOnWithRoom(l *life, empty func()) {
	l.t.Helper()
	ended := make(chan bed.Output, 1)
	go func() {
		ended <- l.Try("exec", l.name, "sh", "-c", "head -c 16000000 /dev/urandom > /big && sync && rm /big")
	}()
	select {
	case out := <-ended:
		l.t.Errorf("16 MB were written to a full disk: exit status %d\n%s", out.Status, out.Stderr)
		empty()
		return
	case <-time.After(10 * time.Second):
	}
	empty()
	if out := <-ended; out.Status != 0 {
		l.t.Errorf("there is room again: exit status %d\n%s", out.Status, out.Stderr)
	}
}

// noRoomForTheNewStart has the file system that a guest's run folder is made on be a full one.
func noRoomForTheNewStart(l *life, volume string) {
	l.t.Helper()
	runs := filepath.Join(l.Places.Run, "vm")
	if err := unix.Mount("none", runs, "tmpfs", 0, "nr_inodes=1,mode=711"); err != nil {
		l.t.Fatal(err)
	}
	mounted := true
	empty := func() {
		if mounted {
			mounted = false
			if err := unix.Unmount(runs, 0); err != nil {
				l.t.Errorf("unmount %s: %v", runs, err)
			}
		}
	}
	l.t.Cleanup(empty)
	if err := os.WriteFile(filepath.Join(volume, "go"), nil, 0o644); err != nil {
		l.t.Fatal(err)
	}
	out := l.Try("move", l.name, "guest")
	l.t.Logf("to a guest that has no room for its run folder: exit status %d\n%s", out.Status, out.Stderr)
	if out.Status != 6 || !strings.Contains(out.Stderr, "it is back at stratum zone and runs") || !strings.Contains(out.Stderr, "no space left") {
		l.t.Errorf("there was no room for the new start: exit status %d\n%s", out.Status, out.Stderr)
	}
	l.settled()
	moves := show(l.t, l.Bed, l.name).Moves
	if last := moves[len(moves)-1]; !strings.Contains(last.Failed, "no space left") {
		l.t.Errorf("the history says %+v", last)
	}
	empty()
}

// fillsDuring moves slow, and fills the disk of dir once it was asked to end.
func fillsDuring(t *testing.T, b *bed.Bed, dir, volume, to string) (out bed.Output, empty func()) {
	t.Helper()
	for _, name := range []string{"asked", "go"} {
		if err := os.Remove(filepath.Join(volume, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	ended := make(chan bed.Output, 1)
	go func() { ended <- b.Try("move", "slow", to) }()
	until(t, "it was asked to end", func() bool {
		_, err := os.Stat(filepath.Join(volume, "asked"))
		return err == nil
	})
	empty = fill(t, dir)
	if err := os.WriteFile(filepath.Join(volume, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return <-ended, empty
}

// runsOnce holds that exactly one run of it lives, where it is said to be.
func (l *life) runsOnce() (at string) {
	l.t.Helper()
	until(l.t, "it runs", func() bool {
		e := show(l.t, l.Bed, l.name)
		return e.State == api.Running && e.MovingTo == ""
	})
	e := show(l.t, l.Bed, l.name)
	k, q := held(l.t, e.ID)
	if want := map[string]int{"zone": 0, "guest": 1}[e.Stratum]; k != 1 || q != want {
		l.t.Errorf("at %s, %d keepers and %d QEMUs of it run", e.Stratum, k, q)
	}
	return e.Stratum
}

// settled holds that, and that it has all that is its own.
func (l *life) settled() {
	l.t.Helper()
	l.same(l.runsOnce())
}
