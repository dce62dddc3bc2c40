package foreign

import (
	"crypto/rand"
	"path/filepath"
	"syscall"
	"testing"
)

// TestAForeignSystemForgets has a system write a character that no later start finds: not
// after a stop, not after QEMU was killed, and not where its daemon was meanwhile.
func TestAForeignSystemForgets(t *testing.T) {
	b := start(t)
	image := make([]byte, 4<<20)
	rand.Read(image[4096:])
	copy(image, keeps)
	image[510], image[511], image[512] = 0x55, 0xaa, 'o'
	for kind, flags := range map[string][]string{"lent": nil, "imported": {"--import"}} {
		b.Run(append([]string{"run", "--name", kind, "--undo-disk", "--memory", "32M", "--disk-image", file(t, "sector.raw", image)}, flags...)...)
		at := hears(t, b, kind, 0, `<o>`)
		again := func(what string, end func()) {
			t.Helper()
			b.Run("type", kind, "x")
			at = hears(t, b, kind, at, `!`)
			b.Run("reset", kind)
			at = hears(t, b, kind, at, `<x>`) // the run goes on, and so does what it wrote
			end()
			b.Run("start", kind)
			at = hears(t, b, kind, at, `<[a-z]>`)
			if said := b.Run("console", kind)[:at]; said[len(said)-3:] != "<o>" {
				t.Errorf("%s, after %s: %q", kind, what, said[max(0, len(said)-20):])
			}
		}
		again("it was killed", func() { b.Run("kill", kind) })
		again("QEMU's end", func() {
			pid := show(t, b, kind).PID
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatalf("end QEMU, which is %d: %v", pid, err)
			}
			until(t, "its end is told as a crash", func() bool {
				e := show(t, b, kind)
				return e.State == "stopped" && e.Exit != nil && e.Exit.Crash != ""
			})
		})
		again("its daemon's end", func() {
			b.SignalDaemon(syscall.SIGKILL, true)
			b.StartDaemon()
			b.Run("kill", kind)
		})
		b.Run("kill", kind)
		if left, _ := filepath.Glob(filepath.Join(b.Places.State, "environments", "*", "undo*")); len(left) > 0 {
			t.Errorf("%s: there is left %v", kind, left)
		}
		b.Run("rm", kind)
	}
}
