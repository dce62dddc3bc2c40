package bootdisk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

// piece is a segment of a kernel made for a test.
type piece struct {
	address uint64
	content []byte
	memory  uint64
}

// vmlinux is an ELF file with segments.
func vmlinux(machine elf.Machine, entry uint64, pieces ...piece) []byte {
	var b, content bytes.Buffer
	le := binary.LittleEndian
	begin := uint64(64 + 56*len(pieces))
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Entry: entry, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(len(pieces)), Shentsize: 64}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	_ = binary.Write(&b, le, h)
	for _, p := range pieces {
		_ = binary.Write(&b, le, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: begin + uint64(content.Len()), Paddr: p.address, Filesz: uint64(len(p.content)), Memsz: p.memory})
		content.Write(p.content)
	}
	b.Write(content.Bytes())
	return b.Bytes()
}

// small is a kernel of two segments, with a hole of zeros in the first.
func small() []byte {
	first := bytes.Repeat([]byte("text"), 0x40000)
	clear(first[0x20000:0x80000])
	return vmlinux(elf.EM_X86_64, 0x1000040, piece{0x1000000, first, 0x100000}, piece{0x1200000, []byte("data"), 0x5001})
}

func parts() Parts {
	archive := []byte(strings.Repeat("070701", 3000))
	return Parts{Kernel: bytes.NewReader(small()), Initramfs: bytes.NewReader(archive), InitramfsSize: int64(len(archive)), CommandLine: "console=ttyS0 quiet"}
}

func makeDisk(t *testing.T, p Parts) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := Make(t.Context(), &b, p)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) || n%(1<<20) != 0 {
		t.Fatalf("it says %d bytes, and wrote %d", n, b.Len())
	}
	return b.Bytes()
}

// golden is the digest of the disk of parts. Where it changes, disks that are kept
// are made anew after an upgrade: that is to be meant.
const golden = "18e4ffa1232f4e8c4f516baf5c2c2b0ad9ad2343073ef3bcfbc01757dee7783e"

func TestTheSamePartsMakeTheSameBytes(t *testing.T) {
	one, two := makeDisk(t, parts()), makeDisk(t, parts())
	if !bytes.Equal(one, two) {
		t.Fatal("the same parts made two disks")
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(one)); got != golden {
		t.Errorf("the disk's digest is %s, and was %s", got, golden)
	}
	other := parts()
	other.CommandLine += " debug"
	if bytes.Equal(one[sector+56:sector+72], makeDisk(t, other)[sector+56:sector+72]) {
		t.Error("disks with other command lines have one identifier")
	}
}

func TestTheSpanIsPutTogetherFromRows(t *testing.T) {
	d := makeDisk(t, parts())
	m := d[paramsOnDisk+page:]
	word := func(at int) int64 { return int64(binary.LittleEndian.Uint32(m[at:])) }
	memory := bytes.Repeat([]byte{0xee}, int(word(mSpan)))
	for i := range int(word(mCount)) {
		at := mRows + i*rowSize
		first, size, to := word(at), word(at+4)*sector, word(at+8)
		if first == 0 {
			clear(memory[to : to+size])
			continue
		}
		begin := (word(mBase) + first) * sector
		copy(memory[to:to+size], d[begin:begin+size])
	}
	want := make([]byte, 0x206000)
	copy(want, bytes.Repeat([]byte("text"), 0x40000))
	clear(want[0x20000:0x80000])
	copy(want[0x200000:], "data")
	if !bytes.Equal(memory, want) {
		t.Error("the rows do not come to the kernel")
	}
	if word(mAddress) != 0x1000000 || word(mEntry) != 0x40 || word(mCount) != 5 {
		t.Errorf("it goes to %#x, entered at %#x, in %d rows", word(mAddress), word(mEntry), word(mCount))
	}
	begin := (word(mBase) + word(mInitrd)) * sector
	if !bytes.HasPrefix(d[begin:], []byte("070701070701")) || word(mInitrdSize) != 18000 {
		t.Error("the initramfs is not where the manifest says")
	}
}

const paramsOnDisk = (codeLBA + codeSectors) * sector

func TestTheTablesOfPartitionsAreWhole(t *testing.T) {
	d := makeDisk(t, parts())
	le := binary.LittleEndian
	if d[510] != 0x55 || d[511] != 0xaa || d[mbrEntry+4] != protectiveOS || le.Uint32(d[mbrEntry+12:]) != uint32(len(d)/sector-1) {
		t.Error("the first sector is no protective one")
	}
	for _, at := range []int{1, len(d)/sector - 1} {
		h := bytes.Clone(d[at*sector : at*sector+gptHeader])
		sum := le.Uint32(h[16:])
		le.PutUint32(h[16:], 0)
		table := le.Uint64(h[72:]) * sector
		if string(h[:8]) != gptSignature || crc32.ChecksumIEEE(h) != sum || le.Uint64(h[24:]) != uint64(at) ||
			crc32.ChecksumIEEE(d[table:table+gptTable*sector]) != le.Uint32(h[88:]) {
			t.Errorf("the table at sector %d is broken", at)
		}
		if e := d[table:]; [16]byte(e[:16]) != systemPartition || le.Uint64(e[32:]) != partitionLBA || le.Uint64(e[40:]) > le.Uint64(h[48:]) {
			t.Errorf("the table at sector %d has no EFI system partition", at)
		}
	}
	sfdisk, err := exec.LookPath("sfdisk")
	if err != nil {
		return // a second opinion, where there is one
	}
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, d, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(sfdisk, "--verify", path).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("No errors detected")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// volumeOf writes the EFI system partition into a file of its own.
func volumeOf(t *testing.T, d []byte) string {
	t.Helper()
	e := d[2*sector:]
	begin, end := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])+1
	path := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(path, d[begin*sector:end*sector], 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheVolumeIsOneForOthers(t *testing.T) {
	fsck := require.Tool(t, "fsck.fat")
	without := parts()
	without.Initramfs, without.InitramfsSize = nil, 0
	large := parts() // clusters of more than a sector
	large.Initramfs, large.InitramfsSize = io.NewSectionReader(zeros{}, 0, 80<<20), 80<<20
	for name, p := range map[string]Parts{"usual": parts(), "no initramfs": without, "large": large} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command(fsck, "-n", "-v", volumeOf(t, makeDisk(t, p))).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("8 files")) || !bytes.Contains(out, []byte("32 bit entries")) {
				t.Errorf("%v\n%s", err, out)
			}
			for _, complaint := range []string{"differ", "rror", "Free cluster summary wrong", "orphan"} {
				if bytes.Contains(bytes.ReplaceAll(out, []byte("for errors"), nil), []byte(complaint)) {
					t.Errorf("%s", out)
				}
			}
		})
	}
}

// zeros is as much of them as one wants.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func TestOthersReadTheVolumesFiles(t *testing.T) {
	mtype := require.Tool(t, "mtype")
	path := volumeOf(t, makeDisk(t, parts()))
	read := func(name string) []byte {
		out, err := exec.Command(mtype, "-i", path, "::"+name).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return out
	}
	if got := string(read("/STRATA/CMDLINE.TXT")); got != "console=ttyS0 quiet\n" {
		t.Errorf("the command line reads %q", got)
	}
	if got := read("/STRATA/INITRD.IMG"); string(got) != strings.Repeat("070701", 3000) {
		t.Errorf("the initramfs reads otherwise, in %d bytes", len(got))
	}
	if got := read("/EFI/BOOT/BOOTX64.EFI"); len(got) != peSize {
		t.Errorf("the loader has %d bytes", len(got))
	}
}

func TestTheLoaderIsAProgramForUEFI(t *testing.T) {
	f, err := pe.NewFile(bytes.NewReader(portable(efiCode, make([]byte, peDataSize))))
	if err != nil {
		t.Fatal(err)
	}
	o, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 || o.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION || o.AddressOfEntryPoint != efiCodeAt {
		t.Errorf("its header is %+v", f.OptionalHeader)
	}
	text, err := f.Section(".text").Data()
	if err != nil || !bytes.HasPrefix(text, efiCode) {
		t.Errorf("its code is not there: %v", err)
	}
}

func TestWhatCannotBeBootedIsRefused(t *testing.T) {
	elfOf := func(entry uint64, pieces ...piece) Parts {
		return Parts{Kernel: bytes.NewReader(vmlinux(elf.EM_X86_64, entry, pieces...))}
	}
	for name, c := range map[string]struct {
		parts Parts
		kind  fault.Kind
		says  string
	}{
		"a kernel that is no ELF file":          {Parts{Kernel: strings.NewReader("MZ")}, fault.Invalid, "no ELF file"},
		"a kernel for another processor":        {Parts{Kernel: bytes.NewReader(vmlinux(elf.EM_AARCH64, 0))}, fault.Unable, "for arm64"},
		"a kernel with nothing in it":           {elfOf(0), fault.Invalid, "nothing to load"},
		"a kernel that ends after its file":     {Parts{Kernel: bytes.NewReader(small()[:0x90000])}, fault.Invalid, "truncated"},
		"a kernel past what a loader maps":      {elfOf(1<<32, piece{1 << 32, []byte("x"), 1}), fault.Invalid, "no loader can place"},
		"a segment that is more in the file":    {elfOf(1<<24, piece{1 << 24, []byte("xy"), 1}), fault.Invalid, "no loader can place"},
		"a kernel that is too big":              {elfOf(1<<24, piece{1 << 24, nil, 700 << 20}, piece{1 << 30, nil, 1}), fault.Invalid, "more than"},
		"segments over one another":             {elfOf(1<<24, piece{1 << 24, nil, 8192}, piece{1<<24 + 4096, nil, 4096}), fault.Invalid, "overlap"},
		"a kernel that is not at 2 MiB":         {elfOf(1<<20, piece{1 << 20, []byte("x"), 1}), fault.Invalid, "2 MiB"},
		"a kernel that is entered elsewhere":    {elfOf(1<<20, piece{1 << 24, []byte("x"), 1}), fault.Invalid, "entry point"},
		"a command line that is too long":       {Parts{CommandLine: strings.Repeat("x", MaxCommandLine+1)}, fault.Invalid, "2048 bytes"},
		"a command line of two lines":           {Parts{CommandLine: "quiet\ninit=/bin/sh"}, fault.Invalid, "at 6"},
		"an initramfs that is too big":          {Parts{InitramfsSize: int64(MaxInitramfs) + 1}, fault.Invalid, "512M"},
		"an initramfs that ends before it says": {Parts{Kernel: bytes.NewReader(small()), Initramfs: strings.NewReader("x"), InitramfsSize: 2}, fault.Invalid, "ends after 1 of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Make(t.Context(), io.Discard, c.parts)
			if err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("it said %v (%v)", err, fault.KindOf(err))
			}
		})
	}
}

func TestWhatIsScatteredStillFits(t *testing.T) {
	content := make([]byte, 64<<20)
	for at := 0; at < len(content); at += 0x30000 {
		content[at] = 1
	}
	p := Parts{Kernel: bytes.NewReader(vmlinux(elf.EM_X86_64, 1<<24, piece{1 << 24, content, uint64(len(content))}))}
	s, err := readSpan(t.Context(), p.Kernel)
	if err != nil || len(s.rows) > mostRows || len(s.rows) == 0 {
		t.Errorf("it has rows %d, and says %v", len(s.rows), err)
	}
}

func TestMakingStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Make(ctx, io.Discard, parts()); !errors.Is(err, context.Canceled) {
		t.Errorf("it says %v", err)
	}
}
