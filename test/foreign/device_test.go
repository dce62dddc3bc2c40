package foreign

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/kernel/bootdisk"
	"github.com/strata-project/strata/internal/kernel/cpio"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// watcher is the first program of a Linux that says on its serial line what disks and
// cards it has whenever that changes. Of each disk it reads how it begins, and writes into
// the second sector; with each card it asks for an address.
const watcher = `#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read m; do insmod $m; done < /modules/order
echo "$(awk '/MemTotal/ {print int($2/1024)}' /proc/meminfo) MB, $(date +%s) seconds"
mkdir /www
echo a page of a foreign system > /www/index.html
httpd -h /www
for e in /sys/class/input/event*; do
	[ "$(cat $e/device/name)" = "Power Button" ] || continue
	(dd if=/dev/input/${e##*/} of=/dev/null bs=24 count=1 2>/dev/null; echo "the button was pressed."; poweroff -f) &
done
before=
while :; do
	now=
	for d in /sys/block/sd[b-z] /sys/block/vd* /sys/block/nvme*; do [ -e $d/size ] && now="$now ${d##*/}"; done
	for c in /sys/class/net/eth[0-9]; do [ -e $c ] && now="$now ${c##*/}"; done
	if [ "$now" != "$before" ]; then
		for x in $now; do
			case " $before " in *" $x "*) continue;; esac
			case $x in
			eth*)
				ifconfig $x up
				udhcpc -i $x -n -q -t 8 -s /dhcp ;;
			*)
				echo "$x begins with $(dd if=/dev/$x bs=5 count=1 2>/dev/null)"
				echo seen-by-$x | dd of=/dev/$x bs=512 seek=1 conv=fsync 2>/dev/null ;;
			esac
		done
		before=$now
		echo "devices:$now."
	fi
	sleep 0.2
done
`

// bound is what the watcher's DHCP client runs.
const bound = `#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ifconfig $interface $ip netmask $subnet
for r in $router; do route add default gw $r dev $interface; done
echo "$interface has $ip."
`

// linux is the image of a disk with Debian's kernel and the watcher. It is kept beside the
// kernel's package, as unpacking that takes a minute on a busy host.
func linux(t *testing.T) string {
	t.Helper()
	require.Tool(t, "busybox")
	deb := bed.MachineKernelPackage(t)
	sum := sha256.Sum256([]byte(deb + watcher + bound + fmt.Sprint(qemu.TSC()/100000)))
	kept := filepath.Join(filepath.Dir(deb), hex.EncodeToString(sum[:8])+".watcher")
	if _, err := os.Stat(kept); err == nil {
		return kept
	}
	ctx, dir := context.Background(), t.TempDir()
	store, err := kernel.Open(filepath.Join(dir, "kernels"), nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(deb)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	k, err := store.Import(ctx, f, kernel.ImportOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	set, err := k.Set(kernel.Wanted{
		For: "this test", Early: []string{"crc32c_generic"},
		Required: []string{"virtio_pci", "virtio_blk", "virtio_net", "ahci", "sd_mod", "nvme", "xhci_pci", "usb_storage", "e1000e"},
		Optional: []string{"button", "evdev", "rtc_cmos"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	for _, folder := range []string{"bin", "dev", "proc", "sys", "modules"} {
		err = errors.Join(err, w.Folder(folder, 0o755))
	}
	busybox, lookErr := os.ReadFile(require.Tool(t, "busybox"))
	put := func(name string, perm uint32, content []byte) {
		err = errors.Join(err, w.File(name, perm, int64(len(content)), bytes.NewReader(content)))
	}
	err = errors.Join(err, lookErr, w.Character("dev/console", 0o600, 5, 1), w.Character("dev/null", 0o666, 1, 3))
	put("bin/busybox", 0o755, busybox)
	var order strings.Builder
	for i, m := range set.Modules {
		content, readErr := os.ReadFile(m.Path)
		err = errors.Join(err, readErr)
		name := fmt.Sprintf("modules/%03d.ko", i)
		put(name, 0o644, content)
		fmt.Fprintf(&order, "/%s\n", name)
	}
	put("modules/order", 0o644, []byte(order.String()))
	put("dhcp", 0o755, []byte(bound))
	put("init", 0o755, []byte("#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\nexec /bin/sh /watch\n"))
	put("watch", 0o755, []byte(watcher))
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	vmlinux, err := os.Open(k.Vmlinux())
	if err != nil {
		t.Fatal(err)
	}
	defer vmlinux.Close()
	disk, err := os.Create(kept + ".part")
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	_, err = bootdisk.Make(ctx, disk, bootdisk.Parts{
		Kernel: vmlinux, Initramfs: bytes.NewReader(archive.Bytes()), InitramfsSize: int64(archive.Len()),
		CommandLine: qemu.CommandLine(qemu.TCG, qemu.TSC(), false, "ttyS0,115200"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(disk.Name(), kept); err != nil {
		t.Fatal(err)
	}
	return kept
}

// serialLine is what a foreign system has said on its serial line.
func serialLine(b *bed.Bed, name string) string {
	return b.Run("console", name)
}

// hears waits until a foreign system's serial line, after the first skip bytes, matches, and
// returns where the match ends.
func hears(t *testing.T, b *bed.Bed, name string, skip int, pattern string) int {
	t.Helper()
	form := regexp.MustCompile(pattern)
	for end := time.Now().Add(require.Patience(90 * time.Second)); ; time.Sleep(300 * time.Millisecond) {
		all := serialLine(b, name)
		skip := min(skip, len(all))
		if at := form.FindStringIndex(all[skip:]); at != nil {
			return skip + at[1]
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not say %q after %d: %s", name, pattern, skip, all)
		}
	}
}

// disk makes an image that begins with a word of five letters.
func disk(t *testing.T, word string) string {
	t.Helper()
	return file(t, word+".raw", append([]byte(word), make([]byte, 4<<20-len(word))...))
}

// TestDevicesArePluggedIn has a Linux tell what it sees of disks and cards that come and go,
// and looks at the images for what it wrote there.
func TestDevicesArePluggedIn(t *testing.T) {
	b := start(t)
	b.Run("network", "create", "second")
	b.Run("run", "--name", "lin", "--os", "linux", "--memory", "256M", "--disk-image", linux(t))
	at := hears(t, b, "lin", 0, `devices: eth0\.`)
	images := map[string]string{"usb": disk(t, "usbes"), "virtio": disk(t, "virts"), "nvme": disk(t, "nvmes")}
	wants := []struct{ bus, name, device string }{{"usb", "disk1", "sdb"}, {"virtio", "disk2", "vda"}, {"nvme", "disk3", "nvme0n1"}}
	for _, w := range wants {
		if got := strings.TrimSpace(b.Run("disk", "attach", "--bus", w.bus, "--format", "raw", "lin", images[w.bus])); got != w.name {
			t.Errorf("a %s disk is called %q", w.bus, got)
		}
		at = hears(t, b, "lin", at, w.device+` begins with `+filepath.Base(images[w.bus])[:5]+`\s`)
		at = hears(t, b, "lin", at, `devices:[^\n]*`+w.device+`[ .]`)
	}
	refusedWhile(t, b, images)
	b.Run("card", "attach", "lin", "second")
	card := show(t, b, "lin").Cards[0]
	if card.Name != "card4" || card.Model != "e1000e" || card.Address.Network != "second" || card.Address.MAC == "" {
		t.Errorf("%+v", card)
	}
	at = hears(t, b, "lin", at, `eth1 has `+regexp.QuoteMeta(card.Address.IPv4)+`\.`)
	at = hears(t, b, "lin", at, `devices: sdb vda nvme0n1 eth0 eth1\.`)
	for what, c := range map[string]struct {
		args []string
		says string
	}{
		"a fifth device":   {[]string{"card", "attach", "lin"}, "no place left"}, // there are four
		"a network in use": {[]string{"network", "rm", "second"}, "used by lin"},
	} {
		if out := b.Try(c.args...); out.Status == 0 || !strings.Contains(out.Stderr, c.says) {
			t.Errorf("%s: %+v", what, out)
		}
	}

	// The daemon's end changes nothing, and the next one takes them away.
	b.SignalDaemon(syscall.SIGKILL, true)
	b.StartDaemon()
	b.Run("disk", "detach", "lin", "disk2")
	at = hears(t, b, "lin", at, `devices: sdb nvme0n1 eth0 eth1\.`)
	content, err := os.ReadFile(images["virtio"])
	if err != nil || string(content[512:523]) != "seen-by-vda" {
		t.Errorf("its image has %q, %v", content[512:530], err)
	}
	// An image that was let go of can be used at once, and its place.
	if got := strings.TrimSpace(b.Run("disk", "attach", "--bus", "virtio", "--format", "raw", "lin", images["virtio"])); got != "disk2" {
		t.Errorf("it is called %q", got)
	}
	at = hears(t, b, "lin", at, `devices:[^\n]* vda[ .]`)
	b.Run("disk", "detach", "lin", "disk1")
	b.Run("card", "detach", "lin", "card4")
	at = hears(t, b, "lin", at, `devices: vda nvme0n1 eth0\.`)
	if e := show(t, b, "lin"); len(e.Cards) != 0 || len(e.Disks) != 2 {
		t.Errorf("%+v %+v", e.Disks, e.Cards)
	}
	b.Run("card", "attach", "--model", "virtio", "lin", "second")
	at = hears(t, b, "lin", at, `eth1 has `)
	before := show(t, b, "lin").Cards

	// What is attached is there again at the next start, also after a change while it is off.
	b.Run("kill", "lin")
	b.Run("disk", "detach", "lin", "disk3")
	b.Run("start", "lin")
	at = hears(t, b, "lin", at, `vda begins with virts\s(?s).*eth[01] has `+regexp.QuoteMeta(before[0].Address.IPv4)+`\.`)
	hears(t, b, "lin", at, `devices: vda eth0 eth1\.`)
	b.Run("disk", "detach", "lin", "disk2")
	b.Run("card", "detach", "lin", before[0].Name)
	b.Run("network", "rm", "second")
	b.Run("rm", "-f", "lin")
}

// refusedWhile tries what is refused while a system has devices.
func refusedWhile(t *testing.T, b *bed.Bed, images map[string]string) {
	t.Helper()
	away := disk(t, "aways")
	linked := filepath.Join(t.TempDir(), "linked.qcow2")
	overlay(t, linked, away)
	b.Run("run", "-d", "--name", "zone", "--stratum", "zone", "busybox", "sleep", "1000")
	for what, c := range map[string]struct {
		args []string
		says string
	}{
		"a zone":                      {[]string{"disk", "attach", "zone", away}, "no hardware"},
		"a zone's card":               {[]string{"card", "attach", "zone"}, "no hardware"},
		"a disk on AHCI":              {[]string{"disk", "attach", "--bus", "ahci", "--format", "raw", "lin", away}, "ahci cannot be plugged in"},
		"a disk on SCSI":              {[]string{"disk", "attach", "--bus", "scsi", "--format", "raw", "lin", away}, "no SCSI controller"},
		"a card for PCI":              {[]string{"card", "attach", "--model", "rtl8139", "lin"}, "PCI Express"},
		"an image that is attached":   {[]string{"disk", "attach", "--format", "raw", "lin", images["usb"]}, "attached to lin as disk1"},
		"no image":                    {[]string{"disk", "attach", "lin", "/no/such.raw"}, "/no/such.raw"},
		"no format":                   {[]string{"disk", "attach", "lin", away}, "format"},
		"an image over one elsewhere": {[]string{"disk", "attach", "lin", linked}, "outside"},
		"a file of strata's own":      {[]string{"disk", "attach", "lin", filepath.Join(b.Places.State, "environments", show(t, b, "lin").ID, "disk.qcow2")}, "strata's own"},
		"what is not attached":        {[]string{"disk", "detach", "lin", "disk0"}, "no disk0"},
		"a disk over an attached one": {[]string{"create", "--image-format", "raw", "--disk-image", images["usb"]}, "attached to lin"},
	} {
		if out := b.Try(c.args...); out.Status == 0 || !strings.Contains(out.Stderr, c.says) {
			t.Errorf("%s: %+v", what, out)
		}
	}
	b.Run("rm", "-f", "zone")
	var listed []api.Disk
	if err := json.Unmarshal([]byte(b.Run("disk", "ls", "--json", "lin")), &listed); err != nil || len(listed) != 3 {
		t.Errorf("%+v, %v", listed, err)
	}
}

// overlay writes a qcow2 image that lies over a raw one. Source: QEMU, docs/interop/qcow2.txt.
func overlay(t *testing.T, path, base string) {
	t.Helper()
	image := make([]byte, 4*65536)
	put := func(at int, n uint64, size int) {
		for i := range size {
			image[at+i] = byte(n >> (8 * (size - 1 - i)))
		}
	}
	copy(image, "QFI\xfb")
	put(4, 3, 4)                  // version
	put(8, 4096, 8)               // the name of what it lies over
	put(16, uint64(len(base)), 4) //
	put(20, 16, 4)                // clusters of 64 KiB
	put(24, 4<<20, 8)             // size
	put(36, 1, 4)                 // one entry of the first table,
	put(40, 3*65536, 8)           // which is there
	put(48, 65536, 8)             // table of counts
	put(56, 1, 4)                 // of one cluster
	put(96, 4, 4)                 // counts have 16 bits
	put(100, 112, 4)              // length of the header
	put(112, 0xe2792aca, 4)       // extension: the format of what it lies over
	put(116, 3, 4)
	copy(image[120:], "raw")
	copy(image[4096:], base)
	put(65536, 2*65536, 8)
	for i := range 4 {
		put(2*65536+2*i, 1, 2)
	}
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWhatDoesNotListenKeepsItsDevices boots a sector that knows of no devices: a card is
// asked for in vain, a USB disk is simply pulled out.
func TestWhatDoesNotListenKeepsItsDevices(t *testing.T) {
	b := start(t)
	sector := make([]byte, 1<<20)
	copy(sector, []byte{0xfb, 0xf4, 0xeb, 0xfd}) // sti, hlt, again
	sector[510], sector[511] = 0x55, 0xaa
	image := file(t, "sector.raw", sector)
	b.Run("run", "--name", "deaf", "--disk-image", image, "--memory", "64M")
	b.Run("run", "--name", "dos", "--os", "dos", "--disk-image", image, "--memory", "64M")
	if out := b.Try("disk", "attach", "--format", "raw", "dos", disk(t, "never")); out.Status == 0 || !strings.Contains(out.Stderr, "at its start only") {
		t.Errorf("a disk for a pc: %+v", out)
	}
	b.Run("rm", "-f", "dos")
	b.Run("disk", "attach", "--format", "raw", "deaf", disk(t, "pulls"))
	b.Run("disk", "detach", "deaf", "disk1")
	b.Run("card", "attach", "deaf")
	if out := b.Try("card", "detach", "deaf", "card1"); out.Status == 0 || !strings.Contains(out.Stderr, "has not") {
		t.Errorf("a card is taken away from a system that does not let go: %+v", out)
	}
	if len(show(t, b, "deaf").Cards) != 1 {
		t.Error("a card that was not let go of is not told any more")
	}
	b.Run("kill", "deaf")
	b.Run("card", "detach", "deaf", "card1")
	b.Run("start", "deaf")
	b.Run("rm", "-f", "deaf")
}
