package image

import (
	"encoding/binary"
	"io"
	"strings"
	"unicode"

	"github.com/strata-project/strata/internal/unit"
)

// Source of all that follows: QEMU, docs/interop/qcow2.txt.
const (
	qcow2Magic   = "QFI\xfb"
	qcow2Header2 = 72  // bytes of version 2's header
	qcow2Header3 = 104 // the least of version 3's
	maxName      = 1023
	maxExtension = 64 << 10 // how far extensions are read

	extensionEnd     = 0
	extensionBacking = 0xe2792aca
	extensionData    = 0x44415441
)

// Incompatible features, by bit.
const (
	qcow2Corrupt  = 1 << 1
	qcow2Data     = 1 << 2
	qcow2Known    = 1<<5 - 1 // dirty, corrupt, data file, compression type, extended L2
	maxL1         = 32 << 20 / 8
	minClusterBit = 9
	maxClusterBit = 21
)

func readQCOW2(r io.ReaderAt, head []byte) (Info, error) {
	i := Info{Format: QCOW2}
	if len(head) < qcow2Header3 {
		return i, damaged(QCOW2, "it ends in its header")
	}
	be := binary.BigEndian
	version, bits, crypt := be.Uint32(head[4:]), be.Uint32(head[20:]), be.Uint32(head[32:])
	size, l1 := be.Uint64(head[24:]), be.Uint32(head[36:])
	header := int64(qcow2Header2)
	switch {
	case version != 2 && version != 3:
		return i, refused("convert it first: qemu-img convert -O qcow2", "the image is qcow version %d, and 2 and 3 are read", version)
	case bits < minClusterBit || bits > maxClusterBit:
		return i, damaged(QCOW2, "clusters of 2^%d bytes", bits)
	case crypt != 0:
		return i, refused("decrypt it first: qemu-img convert", "the qcow2 image is encrypted (method %d)", crypt)
	case size > uint64(maxSize) || l1 > maxL1:
		return i, damaged(QCOW2, "its disk has %d bytes", size)
	}
	i.Size = unit.Size(size)
	if version == 3 {
		features := be.Uint64(head[72:])
		header = int64(be.Uint32(head[100:]))
		switch {
		case features&qcow2Data != 0:
			return i, refused("bring the data into it first: qemu-img convert -O qcow2", "the qcow2 image keeps its data in another file")
		case features&qcow2Corrupt != 0:
			return i, damaged(QCOW2, "it says so itself")
		case features&^qcow2Known != 0:
			return i, refused("convert it where it comes from: qemu-img convert -O qcow2", "the qcow2 image has features that are not known (%#x)", features&^qcow2Known)
		case header < qcow2Header3 || header > 1<<bits || header%8 != 0:
			return i, damaged(QCOW2, "a header of %d bytes", header)
		}
	}
	at, length := be.Uint64(head[8:]), be.Uint32(head[16:])
	if at != 0 && length != 0 {
		if length > maxName || at > 1<<bits {
			return i, damaged(QCOW2, "a name of %d bytes at %d", length, at)
		}
		name, err := readAt(r, int64(at), int64(length))
		if err != nil {
			return i, err
		}
		i.Backing.Name = string(name)
	}
	end := min(int64(1)<<bits, header+maxExtension)
	if i.Backing.Name != "" {
		end = min(end, int64(at))
	}
	return i, readExtensions(r, &i, header, end)
}

// readExtensions looks for those that lead to other files.
func readExtensions(r io.ReaderAt, i *Info, at, end int64) error {
	for at+8 <= end {
		head, err := readAt(r, at, 8)
		if err != nil {
			return err
		}
		kind, length := binary.BigEndian.Uint32(head), int64(binary.BigEndian.Uint32(head[4:]))
		at += 8
		switch {
		case kind == extensionEnd:
			return checkSize(*i)
		case length > end-at:
			return damaged(QCOW2, "a header extension of %d bytes", length)
		case kind == extensionData:
			return refused("bring the data into it first: qemu-img convert -O qcow2", "the qcow2 image names another file for its data")
		case kind == extensionBacking:
			text, err := readAt(r, at, min(length, 16))
			if err != nil {
				return err
			}
			i.Backing.Format = Format(text)
		}
		at += (length + 7) &^ 7
	}
	return checkSize(*i)
}

// checkName refuses what QEMU would take for something else than a file, and what
// cannot be shown.
func checkName(name string) error {
	before, _, _ := strings.Cut(name, "/")
	if strings.Contains(before, ":") {
		return refused("bring all of it into one image first: qemu-img convert", "the image leads to %.100q, which is no file", name)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) || name == "" {
		return refused("bring all of it into one image first: qemu-img convert", "the image leads to %.100q, which is no name of a file", name)
	}
	return nil
}
