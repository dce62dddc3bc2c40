package foreign

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-project/strata/test/bed"
)

// TestDevicesArePluggedIntoATemplate has a template's machine see disks and cards that come
// and go, across the daemon's end, a suspension and its next start.
func TestDevicesArePluggedIntoATemplate(t *testing.T) {
	b := start(t)
	bed.MachineKernel(t, b)
	b.Run("run", "-d", "--name", "box", "--stratum", "machine", "busybox", "sleep", "100000")
	sees := func(what, folder string, there bool) {
		t.Helper()
		await(t, what+" in "+folder, func() bool {
			out := b.Try("exec", "box", "ls", folder)
			return out.Status == 0 && strings.Contains(out.Stdout, what) == there
		})
	}
	refused := func(what, says string, args ...string) {
		t.Helper()
		if out := b.Try(args...); out.Status == 0 || !strings.Contains(out.Stderr, says) {
			t.Errorf("%s: %+v", what, out)
		}
	}
	image, other := disk(t, "virts"), disk(t, "nvmes")
	if got := strings.TrimSpace(b.Run("disk", "attach", "--format", "raw", "box", image)); got != "disk3" {
		t.Errorf("the disk is called %q", got)
	}
	sees("vda", "/sys/block", true)
	if got := b.Run("exec", "box", "cat", "/sys/block/vda/serial"); strings.TrimSpace(got) != "strata-disk3" {
		t.Errorf("its serial number is %q", got)
	}
	if got := b.Run("exec", "box", "cat", "/proc/mounts"); strings.Contains(got, "vda") {
		t.Errorf("it was mounted: %s", got)
	}
	if got := strings.TrimSpace(b.Run("card", "attach", "box")); got != "card2" {
		t.Errorf("the card is called %q", got)
	}
	sees("eth1", "/sys/class/net", true)
	refused("a disk that its kernel has no driver for", "no driver for it: nvme", "disk", "attach", "--bus", "nvme", "--format", "raw", "box", other)
	refused("a USB disk", "no USB controller", "disk", "attach", "--bus", "usb", "--format", "raw", "box", other)
	refused("a move to where they have no place", "disk3, card2", "move", "box", "guest", "--force")

	b.Run("suspend", "box")
	refused("a change while it is suspended", "suspended", "disk", "detach", "box", "disk3")
	b.Run("resume", "box")
	sees("vda", "/sys/block", true)
	b.SignalDaemon(syscall.SIGKILL, true)
	b.StartDaemon()
	b.Run("card", "detach", "box", "card2")
	sees("eth1", "/sys/class/net", false)
	b.Run("disk", "detach", "box", "disk3")
	sees("vda", "/sys/block", false)

	b.Run("kill", "box")
	b.Run("disk", "attach", "--bus", "nvme", "--format", "raw", "box", other) // its next start has the driver
	b.Run("start", "box")
	sees("nvme0n1", "/sys/block", true)
	if out := b.Run("show", "box"); !strings.Contains(out, filepath.Base(other)) {
		t.Errorf("show: %s", out)
	}
	b.Run("rm", "-f", "box")
	b.Run("run", "-d", "--name", "old", "--board", "pc", "busybox", "sleep", "100000")
	refused("a disk for an old board", "at its start only", "disk", "attach", "--format", "raw", "old", image)
	b.Run("rm", "-f", "old")
}
