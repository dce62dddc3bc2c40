package bootdisk

import (
	"context"
	"encoding/binary"
	"io"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// MaxInitramfs bounds an initramfs. Unit: bytes. A machine holds it below 4 GiB.
const MaxInitramfs = 512 * unit.MiB

// Parts is what a boot disk is made of.
type Parts struct {
	// Kernel is an uncompressed kernel for amd64, an ELF file. It is read twice.
	Kernel io.ReaderAt
	// Initramfs is an archive as Linux takes it; InitramfsSize bytes of it are read.
	Initramfs     io.ReaderAt
	InitramfsSize int64 // bytes; 0: there is none
	// CommandLine is the kernel's, at most MaxCommandLine bytes of printable ASCII.
	CommandLine string
}

// Make writes a disk that boots what p says to w, and returns its size in bytes, a
// multiple of 1 MiB. The same parts make the same bytes. Kinds: Invalid where the
// kernel is none or too big, or the command line cannot be one; Unable where the
// kernel is for another architecture.
func Make(ctx context.Context, w io.Writer, p Parts) (int64, error) {
	if err := p.check(); err != nil {
		return 0, err
	}
	kernel, err := readSpan(ctx, p.Kernel)
	if err != nil {
		return 0, fault.Wrap(err, "make a boot disk")
	}
	d := plan(kernel, p)
	out := &counting{w: w}
	if err := d.write(ctx, out); err != nil {
		return 0, fault.Wrap(err, "make a boot disk")
	}
	if out.at != d.sectors*sector {
		return 0, fault.Internalf("the boot disk has %d bytes where %d were planned", out.at, d.sectors*sector)
	}
	return out.at, nil
}

func (p Parts) check() error {
	if n := len(p.CommandLine); n > MaxCommandLine {
		return fault.Invalidf("the kernel's command line has %d bytes, and Linux takes %d", n, MaxCommandLine)
	}
	if i := strings.IndexFunc(p.CommandLine, func(c rune) bool { return c < ' ' || c > '~' }); i >= 0 {
		return fault.Invalidf("the kernel's command line has a character at %d that is not printable ASCII", i+1)
	}
	if p.InitramfsSize < 0 || p.InitramfsSize > int64(MaxInitramfs) {
		return fault.Invalidf("the initramfs has %s, and a boot disk takes %s", unit.Size(p.InitramfsSize), unit.Size(MaxInitramfs))
	}
	return nil
}

// disk is a boot disk before it is written.
type disk struct {
	sectors int64 // of all
	volume  *volume
	id      identity
	head    []byte // what is before the partition
	tail    []byte // what is after it
}

// The names of what the partition holds.
const (
	loaderFile = "BOOTX64.EFI" // UEFI 2.10, 3.5.1.1
	kernelFile = "KERNEL.BIN"
	initrdFile = "INITRD.IMG"
	textFile   = "CMDLINE.TXT"
)

func plan(kernel *span, p Parts) *disk {
	loader := &file{name: loaderFile, size: peSize}
	packed := &file{name: kernelFile, size: kernel.stored(), write: kernel.write}
	initrd := &file{name: initrdFile, size: p.InitramfsSize, write: func(ctx context.Context, w io.Writer) error {
		return pour(ctx, w, p.Initramfs, p.InitramfsSize)
	}}
	text := bytesFile(textFile, []byte(p.CommandLine+"\n"))
	v := newVolume(
		&file{name: "EFI", files: []*file{{name: "BOOT", files: []*file{loader}}}},
		&file{name: "STRATA", files: []*file{packed, initrd, text}},
	)
	parts := parameters(p)
	manifest := func(base int64) []byte {
		return append(parts[:page:page], manifest(kernel, p, base, v.sectorOf(packed), v.sectorOf(initrd))...)
	}
	loader.write = bytesFile("", portable(efiCode, manifest(0))).write

	d := &disk{volume: v, id: identify(manifest(partitionLBA))}
	v.serial = d.id.serial()
	d.sectors = whole(partitionLBA+v.sectors+gptTail, unit.MiB/sector)
	primary, backup := tables(d.sectors, v.sectors, d.id)
	d.head = make([]byte, partitionLBA*sector)
	copy(d.head, protective(mbrCode, d.sectors))
	copy(d.head[sector:], primary)
	copy(d.head[codeLBA*sector:], biosCode)
	copy(d.head[(codeLBA+codeSectors)*sector:], manifest(partitionLBA))
	d.tail = make([]byte, (d.sectors-partitionLBA-v.sectors)*sector)
	copy(d.tail[len(d.tail)-len(backup):], backup)
	return d
}

func (d *disk) write(ctx context.Context, w *counting) error {
	if _, err := w.Write(d.head); err != nil {
		return err
	}
	if err := d.volume.write(ctx, w); err != nil {
		return err
	}
	_, err := w.Write(d.tail)
	return err
}

// parameters is the page that the kernel is entered with, but for what only the
// loader knows.
func parameters(p Parts) []byte {
	b := make([]byte, page)
	le := binary.LittleEndian
	le.PutUint16(b[pBootFlag:], bootFlag)
	copy(b[pHeader:], headerMagic)
	le.PutUint16(b[pVersion:], bootProtocol)
	b[pLoader], b[pLoadFlags] = unknownLoader, loadedHigh
	le.PutUint32(b[pInitrdSize:], uint32(p.InitramfsSize))
	le.PutUint32(b[pAlignment:], kernelAlign)
	b[pRelocatable] = 1
	le.PutUint32(b[pCommandSize:], MaxCommandLine)
	return b
}

// manifest is the page that the loaders read; sectors are counted from the
// partition's begin, and base is where that is for this loader.
func manifest(s *span, p Parts, base, kernelAt, initrdAt int64) []byte {
	b := make([]byte, page)
	put := func(at int, v int64) { binary.LittleEndian.PutUint32(b[at:], uint32(v)) }
	put(mMagic, manifestMagic)
	put(mBase, base)
	put(mAddress, s.address)
	put(mSpan, s.size)
	put(mEntry, s.entry)
	put(mInitrd, initrdAt)
	put(mInitrdSize, p.InitramfsSize)
	put(mCount, int64(len(s.rows)))
	for i, r := range s.rows {
		at := mRows + i*rowSize
		if r.first >= 0 {
			put(at, kernelAt+r.first)
		}
		put(at+4, r.size/sector)
		put(at+8, r.at)
	}
	copy(b[mCommand:], p.CommandLine)
	return b
}

// pour copies size bytes, which r must have.
func pour(ctx context.Context, w io.Writer, r io.ReaderAt, size int64) error {
	buffer := make([]byte, unit.MiB)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buffer[:min(int64(len(buffer)), size-at)]
		n, err := r.ReadAt(p, at)
		if n < len(p) {
			if err == nil || err == io.EOF {
				return fault.Invalidf("the initramfs ends after %d of %d bytes", at+int64(n), size)
			}
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// counting knows how much was written, and fills up with zeros.
type counting struct {
	w  io.Writer
	at int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.at += int64(n)
	return n, err
}

// fill writes zeros up to a place that is not behind.
func (c *counting) fill(to int64) error {
	zeros := make([]byte, min(to-c.at, int64(unit.MiB)))
	for c.at < to {
		if _, err := c.Write(zeros[:min(to-c.at, int64(len(zeros)))]); err != nil {
			return err
		}
	}
	return nil
}
