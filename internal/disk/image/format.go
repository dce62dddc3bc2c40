package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Format is how a disk is written down.
type Format string

// The formats, by QEMU's names; an ISO is raw to QEMU.
const (
	Raw   Format = "raw"
	QCOW2 Format = "qcow2"
	VMDK  Format = "vmdk"
	VDI   Format = "vdi"
	VHDX  Format = "vhdx"
	ISO   Format = "iso"
)

// Formats are those that are read.
func Formats() []Format { return []Format{Raw, QCOW2, VMDK, VDI, VHDX, ISO} }

// sector is the unit of disks. Unit: bytes.
const sector = 512

// maxSize is the largest disk that is believed. Unit: bytes.
const maxSize = 256 * unit.TiB

// Info is what a file's own header says.
type Info struct {
	Format  Format
	Size    unit.Size // of the disk in it
	Backing Backing   // of a qcow2 image
	extents []extent  // of a vmdk descriptor
}

// Backing is an image that another one lies over.
type Backing struct {
	Name   string // as the header has it; "": none
	Format Format // "": the header does not say
}

// others are files that are no disk images, or none that are read, by their beginning.
var others = []struct{ magic, what, help string }{
	{"\x1f\x8b", "compressed by gzip", "unpack it first: gunzip"},
	{"\xfd7zXZ\x00", "compressed by xz", "unpack it first: unxz"},
	{"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it first: unzstd"},
	{"BZh", "compressed by bzip2", "unpack it first: bunzip2"},
	{"PK\x03\x04", "a zip archive", "unpack it first: unzip"},
	{"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first: 7z x"},
	{"conectix", "a VHD image of Virtual PC", "convert it first: qemu-img convert -O qcow2"},
	{"COWD", "a VMDK image of an ESX snapshot", "consolidate the disk where it comes from"},
	{"QED\x00", "a QED image", "convert it first: qemu-img convert -O qcow2"},
	{"LUKS\xba\xbe", "encrypted (LUKS)", "open it first, or say format raw where the system inside does"},
	{"\x7fELF", "a program", "give a disk image"},
}

// headRead is how much of a file is read to tell what it is. Unit: bytes. An ISO's
// first descriptor is at 32 KiB.
const headRead = 34 << 10

// Detect tells what a file of size bytes is by what is in it. It reads headers only.
// Kinds: Invalid, with the field "format" where it is nothing that is known.
func Detect(r io.ReaderAt, size int64) (Info, error) {
	head, err := readAt(r, 0, min(headRead, size))
	if err != nil {
		return Info{}, err
	}
	switch {
	case hasPrefix(head, qcow2Magic):
		return readQCOW2(r, head)
	case hasPrefix(head, vmdkMagic):
		return readVMDK(r, head)
	case hasPrefix(bytes.TrimLeft(head[:min(len(head), 64)], " \r\n\t"), vmdkText):
		return readVMDKText(r, size)
	case hasPrefix(head, vhdxMagic):
		return readVHDX(r)
	case len(head) >= vdiHeader && binary.LittleEndian.Uint32(head[vdiMagicAt:]) == vdiMagic:
		return readVDI(head)
	case isISO(head):
		return Info{Format: ISO, Size: unit.Size((size + sector - 1) &^ (sector - 1))}, nil // as QEMU has it
	}
	for _, o := range others {
		if hasPrefix(head, o.magic) {
			return Info{}, fault.Invalidf("the file is no disk image that is read: it is %s", o.what).At("format").Help("%s", o.help)
		}
	}
	if len(head) > 262 && string(head[257:262]) == "ustar" {
		return Info{}, fault.Invalidf("the file is no disk image: it is a tar archive, or an OVA").At("format").Help("unpack it first, and give the disk in it: tar xf")
	}
	if hasTable(head) {
		return readRaw(size)
	}
	return Info{}, fault.Invalidf("the file is no disk image that is known, and has no partition table").At("format").
		Help("formats: %s; say format raw where it is a disk without partitions", words(Formats()))
}

// readRaw is an image without a header.
func readRaw(size int64) (Info, error) {
	i := Info{Format: Raw, Size: unit.Size(size)}
	if size%sector != 0 {
		return i, fault.Invalidf("%d bytes are no whole number of sectors, so the file is no raw image, or a part of one", size).At("format").Help("formats: %s", words(Formats()))
	}
	return i, checkSize(i)
}

// hasTable tells whether a disk begins with a boot sector or a partition table.
// Source: UEFI 2.10, 5.2 and 5.3.
func hasTable(head []byte) bool {
	return len(head) >= sector && head[510] == 0x55 && head[511] == 0xaa || len(head) >= 2*sector && string(head[sector:sector+8]) == "EFI PART"
}

// isISO tells whether the volume descriptors of a CD or DVD are there. Source:
// ECMA-119, 8.1; ECMA-167, 2/8.3.1.
func isISO(head []byte) bool {
	const at = 32<<10 + 1
	if len(head) < at+5 {
		return false
	}
	id := string(head[at : at+5])
	return id == "CD001" || id == "BEA01"
}

// checkSize refuses what no disk can be.
func checkSize(i Info) error {
	if i.Size <= 0 || i.Size > maxSize {
		return damaged(i.Format, "its disk has %d bytes", uint64(i.Size))
	}
	return nil
}

// damaged reports a header that contradicts itself or the file.
func damaged(f Format, format string, args ...any) error {
	e := fault.Invalidf(format, args...)
	e.Message = "the " + string(f) + " image is damaged, or made by nothing that is known: " + e.Message
	return e.At("image").Help("check it where it comes from: qemu-img check")
}

// refused reports what is understood and not taken.
func refused(help, format string, args ...any) error {
	return fault.Invalidf(format, args...).At("image").Help("%s", help)
}

// readAt reads n bytes; n is bounded by the caller. A file that is shorter is damaged.
func readAt(r io.ReaderAt, at, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		err = nil
		if int64(got) < n {
			return nil, fault.Invalidf("the image ends at %d, in the middle of its header", at+int64(got)).At("image").Help("get the whole file")
		}
	}
	if err != nil {
		return nil, fault.Internalf("read the image: %w", err)
	}
	return b, nil
}

func hasPrefix(b []byte, magic string) bool { return bytes.HasPrefix(b, []byte(magic)) }

func words(f []Format) string {
	out := make([]string, len(f))
	for i, v := range f {
		out[i] = string(v)
	}
	return strings.Join(out, ", ")
}
