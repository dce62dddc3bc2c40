package foreign

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/kernel/cpio"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// dom0 is the first program of Xen's first domain: it says what it runs on, and turns the
// computer off.
const dom0 = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
echo "dom0 is on $(/bin/busybox cat /sys/hypervisor/type), and $(/bin/busybox uname -r)"
/bin/busybox poweroff -f
`

// first makes an initramfs of a program that busybox runs.
func first(t *testing.T, program string) string {
	t.Helper()
	busybox, err := os.Open(require.Tool(t, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	defer busybox.Close()
	info, err := busybox.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := cpio.NewWriter(&out)
	for _, err := range []error{
		w.Folder("bin", 0o755), w.Folder("dev", 0o755),
		w.Character("dev/console", 0o600, 5, 1),
		w.File("bin/busybox", 0o755, info.Size(), busybox),
		w.File("init", 0o755, int64(len(program)), bytes.NewReader([]byte(program))),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return file(t, "initrd.img", out.Bytes())
}

// TestXenRunsItsFirstDomain is a hypervisor that nobody here wrote, with Debian's kernel
// in its first domain: from GRUB to a program, which turns the computer off.
func TestXenRunsItsFirstDomain(t *testing.T) {
	b := start(t)
	xen, _ := filepath.Glob(filepath.Join(unpacked(t, "xen-hypervisor-4.17-amd64"), "boot/xen-*.gz"))
	require.Host(t, "xen-hypervisor", len(xen) == 1, "its package has no hypervisor")
	kernel, _ := filepath.Glob(filepath.Join(unpackedFile(t, bed.FullKernelPackage(t)), "boot/vmlinuz-*"))
	require.Host(t, "linux-image-amd64", len(kernel) == 1, "its package has no kernel")
	disk := stick(t, `set timeout=0
menuentry "Xen" {
	multiboot2 /xen.gz console=com1 com1=115200,8n1 dom0_mem=384M noreboot
	module2 /vmlinuz console=hvc0
	module2 /initrd.img
}
`, map[string]string{"xen.gz": xen[0], "vmlinuz": kernel[0], "initrd.img": first(t, dom0)})
	began := time.Now()
	b.Run("run", "--name", "xen", "--os", "linux", "--memory", "900M", "--disk-image", disk)
	l := join(t, b, "xen")
	l.hears(`\(XEN\) Xen version 4\.17`, slow)
	t.Logf("Xen after %v", time.Since(began).Round(time.Second))
	l.hears(`Linux version 6\.1`, slow)
	l.hears(`dom0 is on xen, and 6\.1\S*-amd64`, slow)
	t.Logf("a program after %v", time.Since(began).Round(time.Second))
	// It turns the computer off through Xen.
	if out := b.Run("wait", "xen"); out != "0" {
		t.Errorf("it ended with %s", out)
	}
	b.Run("rm", "xen")
}
