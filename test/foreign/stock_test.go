package foreign

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
)

// The disk of a Debian as its installer would make it. Units: sectors of 512 bytes, but
// for the size. Source of the types: UEFI 2.10, table 5.7; GRUB's manual, 3.4.
const (
	stockSize  = 2 << 30
	stockBIOS  = 64 // up to the next one
	stockESP   = 4096
	stockRoot  = stockESP + 64<<11
	stockUUID  = "5ca1ab1e-0000-4000-8000-000000000003"
	biosBoot   = "21686148-6449-6e6f-744e-656564454649"
	efiSystem  = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	linuxFiles = "0fc63daf-8483-4772-8e79-3d69d8477de4"
)

// stockPackages are what Debian's installer installs, without what nobody looks at here.
const stockPackages = "linux-image-amd64,initramfs-tools,zstd,systemd-sysv,dbus,udev,kmod,e2fsprogs,iproute2,grub-pc-bin,grub2-common,grub-efi-amd64-signed,shim-signed"

// stockFiles are what its installer asks and then writes down.
var stockFiles = map[string]string{
	"etc/hostname":                         "stock\n",
	"etc/hosts":                            "127.0.0.1 localhost stock\n",
	"etc/fstab":                            "UUID=" + stockUUID + " / ext4 errors=remount-ro 0 1\n",
	"etc/systemd/network/20-wired.network": "[Match]\nName=en*\n\n[Network]\nDHCP=yes\n",
	"etc/systemd/system.conf.d/slow.conf":  "[Manager]\nDefaultDeviceTimeoutSec=900\n", // such as of the serial line's terminal
	"etc/default/grub":                     "GRUB_TIMEOUT=0\n",
	"boot/grub/grub.cfg": `insmod part_gpt
insmod ext2
insmod gzio
search --no-floppy --fs-uuid --set=root ` + stockUUID + `
set timeout=0
menuentry "Debian" {
	linux /vmlinuz root=UUID=` + stockUUID + ` ro console=tty0 console=ttyS0 systemd.default_timeout_start_sec=900
	initrd /initrd.img
}
`,
}

// stock returns a disk with Debian that is made once per machine and day, and is to be
// read only.
func stock(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"mmdebstrap", "mke2fs", "mformat", "mcopy", "mmd", "chroot"} {
		require.Tool(t, name)
	}
	dir := filepath.Join(os.TempDir(), "strata-test-stock")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	recipe := crc32.ChecksumIEEE([]byte(fmt.Sprint(stockPackages, stockFiles, stockRoot, stockSize)))
	disk := filepath.Join(dir, fmt.Sprintf("debian-%08x.raw", recipe))
	if info, err := os.Stat(disk); err == nil && time.Since(info.ModTime()) < 24*time.Hour {
		return disk
	}
	old, _ := filepath.Glob(filepath.Join(dir, "debian-*"))
	for _, path := range old {
		os.RemoveAll(path)
	}
	began := time.Now()
	tree := filepath.Join(dir, "debian-tree")
	defer os.RemoveAll(tree)
	install(t, tree)
	t.Logf("Debian's packages are installed after %v", time.Since(began).Round(time.Second))
	if err := layOut(t, tree, disk+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(disk+".new", disk); err != nil {
		t.Fatal(err)
	}
	t.Logf("its disk is made after %v", time.Since(began).Round(time.Second))
	return disk
}

// install makes the root of a Debian.
func install(t *testing.T, tree string) {
	t.Helper()
	args := []string{"--quiet", "--mode=root", "--variant=minbase", "--include=" + stockPackages, `--aptopt=Apt::Install-Recommends "false"`}
	for _, folder := range []string{"man", "doc", "locale"} {
		args = append(args, "--dpkgopt=path-exclude=/usr/share/"+folder+"/*")
	}
	out, err := exec.Command("mmdebstrap", append(args, "bookworm", tree)...).CombinedOutput()
	require.Host(t, "debian-mirror", err == nil, "Debian cannot be installed: "+string(out[max(0, len(out)-2<<10):]))
	finish(t, tree)
}

// finish does what an installer does last.
func finish(t *testing.T, tree string) {
	t.Helper()
	for name, content := range stockFiles {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	password := exec.Command("chroot", tree, "chpasswd")
	password.Stdin = strings.NewReader("root:strata\n")
	if out, err := password.CombinedOutput(); err != nil {
		t.Fatalf("set a password: %v\n%s", err, out)
	}
	command(t, "chroot", tree, "systemctl", "enable", "systemd-networkd")
	command(t, "chroot", tree, "cp", "-r", "/usr/lib/grub/i386-pc", "/boot/grub/")
	command(t, "chroot", tree, "grub-mkimage", "-O", "i386-pc", "-p", "(,gpt3)/boot/grub", "-o", "/boot/grub/i386-pc/core.img", "biosdisk", "part_gpt", "ext2")
}

// layOut puts a root, GRUB for a BIOS, and GRUB for UEFI with Secure Boot on a disk.
func layOut(t *testing.T, tree, disk string) error {
	t.Helper()
	end := lastOf(stockSize)
	err := carve(disk, stockSize, filepath.Join(tree, "usr/lib/grub/i386-pc/boot.img"), filepath.Join(tree, "boot/grub/i386-pc/core.img"),
		[]partition{{biosBoot, stockBIOS, stockESP - 1}, {efiSystem, stockESP, stockRoot - 1}, {linuxFiles, stockRoot, end}})
	if err != nil {
		return err
	}
	esp := fmt.Sprintf("%s@@%d", disk, stockESP*512)
	config := file(t, "grub.cfg", []byte("search.fs_uuid "+stockUUID+" root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"))
	command(t, "mformat", "-i", esp, "-F", "-T", fmt.Sprint(stockRoot-stockESP), "::")
	command(t, "mmd", "-i", esp, "::EFI", "::EFI/BOOT", "::EFI/debian")
	for to, from := range map[string]string{
		"EFI/BOOT/BOOTX64.EFI": filepath.Join(tree, "usr/lib/shim/shimx64.efi.signed"),
		"EFI/BOOT/grubx64.efi": filepath.Join(tree, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
		"EFI/debian/grub.cfg":  config,
	} {
		command(t, "mcopy", "-i", esp, from, "::"+to)
	}
	fill(t, disk, tree, partition{linuxFiles, stockRoot, end})
	return nil
}

// fill puts a folder on a partition.
func fill(t *testing.T, disk, tree string, p partition) {
	t.Helper()
	command(t, "mke2fs", "-q", "-F", "-t", "ext4", "-U", stockUUID, "-d", tree, "-E", fmt.Sprintf("offset=%d,assume_storage_prezeroed=1", p.first*512),
		disk, fmt.Sprintf("%dk", (p.last-p.first+1)/2))
}

// lastOf is the last sector of a disk of a size that partitions may have.
func lastOf(size int64) uint64 { return uint64(size/512 - 34) }

// carve makes a disk of a size with partitions, the first of which GRUB's core is in.
func carve(disk string, size int64, bootFile, coreFile string, all []partition) error {
	boot, err := os.ReadFile(bootFile)
	if err != nil {
		return err
	}
	core, err := os.ReadFile(coreFile)
	if err != nil {
		return err
	}
	if len(core) > int(all[0].last+1-all[0].first)*512 {
		return fmt.Errorf("GRUB has %d bytes", len(core))
	}
	f, err := os.OpenFile(disk, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	table := partitions(all, size)
	copy(table, embed(boot, core, all[0].first))
	for at, data := range map[int64][]byte{
		0: table[:34*512], int64(all[0].first) * 512: core, size - 33*512: table[2*512 : 34*512], size - 512: table[34*512:],
	} {
		if _, err := f.WriteAt(data, at); err != nil {
			return err
		}
	}
	return nil
}

// embed has GRUB's first sector load the core that is at a sector, and that the rest of
// itself. Source: GRUB 2.06, include/grub/i386/pc/boot.h and grub-core/boot/i386/pc/diskboot.S.
func embed(boot, core []byte, at uint64) []byte {
	const (
		coreSector = 0x5c
		blocks     = 0x1f4
		segment    = 0x820
	)
	first := bytes.Clone(boot[:440])
	le := binary.LittleEndian
	le.PutUint64(first[coreSector:], at)
	le.PutUint64(core[blocks:], at+1)
	le.PutUint16(core[blocks+8:], uint16((len(core)+511)/512-1))
	le.PutUint16(core[blocks+10:], segment)
	return first
}

// partition is one of a disk, of a type, from a sector to a last one.
type partition struct {
	kind        string
	first, last uint64
}

// partitions is a GPT: protective MBR, header, table, and then the header that is at the
// disk's end. Source: UEFI 2.10, 5.2 and 5.3.
func partitions(all []partition, bytes int64) []byte {
	const entries, size = 128, 128
	last := uint64(bytes/512 - 1)
	out := make([]byte, 35*512)
	le := binary.LittleEndian
	mbr := out[446:]
	mbr[4], out[510], out[511] = 0xee, 0x55, 0xaa
	le.PutUint32(mbr[8:], 1)
	le.PutUint32(mbr[12:], uint32(last))
	table := out[2*512 : 34*512]
	for i, p := range all {
		e := table[i*size:]
		copy(e, guid(p.kind))
		copy(e[16:], guid(fmt.Sprintf("5ca1ab1e-0000-4000-8000-1000000000%02d", i)))
		le.PutUint64(e[32:], p.first)
		le.PutUint64(e[40:], p.last)
	}
	header := func(h []byte, here, other, at uint64) {
		copy(h, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00")
		le.PutUint64(h[24:], here)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], 34)
		le.PutUint64(h[48:], lastOf(bytes))
		copy(h[56:], guid("5ca1ab1e-0000-4000-8000-000000000000"))
		le.PutUint64(h[72:], at)
		le.PutUint32(h[80:], entries)
		le.PutUint32(h[84:], size)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
	}
	header(out[512:1024], 1, last, 2)
	header(out[34*512:], last, 1, last-32)
	return out
}

// guid is one as it is written down: its first three parts the other way round.
func guid(text string) []byte {
	var b []byte
	fmt.Sscanf(strings.ReplaceAll(text, "-", ""), "%x", &b)
	return []byte{b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]}
}
