package foreign

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
)

// TestADebianDiskIsACompleteSystem boots a disk that Debian's own kernel, initramfs and
// GRUB are on, by a BIOS, as it is on any computer: from login to power button.
func TestADebianDiskIsACompleteSystem(t *testing.T) {
	b := start(t)
	disk := stock(t)
	before, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	b.Run("run", "--name", "stock", "--os", "linux", "--memory", "512M", "--disk-image", disk)
	l := join(t, b, "stock")
	l.login()
	t.Logf("logged in after %v", time.Since(began).Round(time.Second))
	own, _, _ := strings.Cut(show(t, b, "stock").Network.IPv4, "/")
	// networkd may be asking still.
	l.types("for i in $(seq 60); do ip -4 -o addr show scope global | grep inet && break; sleep 1; done\n")
	l.hears(`inet `+regexp.QuoteMeta(own)+`/\d+ .*\n`, slow)
	l.types("ip route\n")
	l.hears(`default via \S+ dev en\S+ proto dhcp`, slow)
	l.types("lsblk -no MODEL /dev/sda; sed -i s/ttyS0/ttyS0\\ kept=42/ /boot/grub/grub.cfg\n")
	l.hears(`QEMU HARDDISK`, slow)
	l.hears(`root@stock:~# `, slow)
	// On the screen there is a login as well.
	eventually(t, b, "stock", `stock login: `, slow)

	began = time.Now()
	b.Run("stop", "--time", "110s", "stock")
	took := time.Since(began)
	t.Logf("it powered off in %v", took.Round(time.Second))
	if e := show(t, b, "stock"); e.State != api.Stopped || e.Exit == nil || e.Exit.Status != 0 || e.Exit.Signal != 0 || e.Exit.Crash != "" {
		t.Errorf("after the power button, %v: %+v", took, e.Exit)
	}
	if said := b.Run("console", "stock"); !strings.Contains(said, "reboot: Power down") {
		t.Errorf("it did not power off by itself: %s", said[max(0, len(said)-2<<10):])
	}

	b.Run("start", "stock")
	l = join(t, b, "stock")
	l.hears(`Command line: .* console=ttyS0 kept=42 `, slow) // GRUB has read what was written
	b.Run("rm", "-f", "stock")
	if after, err := os.Stat(disk); err != nil || after.ModTime() != before.ModTime() {
		t.Errorf("the image was written to: %v", err)
	}
}
