package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Source of all that follows: VMware, Virtual Disk Format 5.0.
const (
	vmdkMagic     = "KDMV"
	vmdkText      = "# Disk DescriptorFile"
	vmdkHeader    = 79
	maxDescriptor = 64 << 10 // bytes of a descriptor
	maxExtents    = 128      // files of a disk
	maxGrain      = 2048     // sectors
)

// extent is a line of a descriptor: a stretch of the disk.
type extent struct {
	sectors int64
	kind    string // FLAT or SPARSE
	name    string
	offset  int64 // in sectors, of a FLAT one
}

// readVMDK is a sparse file: a disk by itself (monolithicSparse, streamOptimized), or
// an extent of one.
func readVMDK(r io.ReaderAt, head []byte) (Info, error) {
	i := Info{Format: VMDK}
	if len(head) < vmdkHeader {
		return i, damaged(VMDK, "it ends in its header")
	}
	le := binary.LittleEndian
	version, capacity, grain := le.Uint32(head[4:]), le.Uint64(head[12:]), le.Uint64(head[20:])
	at, sectors := le.Uint64(head[28:]), le.Uint64(head[36:])
	switch {
	case version < 1 || version > 3:
		return i, damaged(VMDK, "version %d", version)
	case capacity > uint64(maxSize)/sector:
		return i, damaged(VMDK, "its disk has %d sectors", capacity)
	case grain == 0 || grain > maxGrain || grain&(grain-1) != 0:
		return i, damaged(VMDK, "grains of %d sectors", grain)
	case at == 0 && sectors != 0 || at > 1<<32 || sectors > maxDescriptor/sector:
		return i, damaged(VMDK, "a descriptor of %d sectors at %d", sectors, at)
	}
	i.Size = unit.Size(capacity * sector)
	if at != 0 {
		text, err := readAt(r, int64(at)*sector, int64(sectors)*sector)
		if err != nil {
			return i, err
		}
		// What it says of extents is of the file itself.
		if err := checkParent(string(text)); err != nil {
			return i, err
		}
	}
	return i, checkSize(i)
}

var (
	parentLine = regexp.MustCompile(`(?im)^[ \t]*parentCID[ \t]*=[ \t]*"?([0-9a-f]+)`)
	extentLine = regexp.MustCompile(`^(?i)(RW|RDONLY|NOACCESS)\s+(\d{1,15})\s+([A-Z]+)(?:\s+"([^"]+)")?(?:\s+(\d{1,15}))?`)
)

// noParent is what a disk by itself has for its parent's number.
const noParent = "ffffffff"

func checkParent(text string) error {
	if m := parentLine.FindStringSubmatch(text); m != nil && !strings.EqualFold(m[1], noParent) {
		return refused("give a full clone of the machine: a snapshot or a linked clone is a part of one", "the vmdk image is what has changed since another one")
	}
	return nil
}

// readVMDKText is a descriptor in a file of its own.
func readVMDKText(r io.ReaderAt, size int64) (Info, error) {
	i := Info{Format: VMDK}
	if size > maxDescriptor {
		return i, damaged(VMDK, "a descriptor of %d bytes", size)
	}
	b, err := readAt(r, 0, size)
	if err != nil {
		return i, err
	}
	text := strings.TrimRight(string(b), "\x00")
	if err := checkParent(text); err != nil {
		return i, err
	}
	var sectors int64
	for line := range strings.Lines(text) {
		m := extentLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		e := extent{kind: strings.ToUpper(m[3]), name: m[4]}
		e.sectors, _ = strconv.ParseInt(m[2], 10, 64) // digits, of which there are few
		e.offset, _ = strconv.ParseInt(m[5], 10, 64)
		if e.kind == "VMFS" {
			e.kind = "FLAT"
		}
		if e.kind != "FLAT" && e.kind != "SPARSE" || e.name == "" || strings.EqualFold(m[1], "NOACCESS") {
			return i, refused("convert it where it comes from", "the vmdk image has an extent of kind %s, and FLAT and SPARSE are read", e.kind)
		}
		i.extents = append(i.extents, e)
		sectors += e.sectors
		if len(i.extents) > maxExtents || sectors > int64(maxSize)/sector {
			return i, damaged(VMDK, "%d extents with %d sectors", len(i.extents), sectors)
		}
	}
	if len(i.extents) == 0 {
		return i, damaged(VMDK, "its descriptor names no extent")
	}
	i.Size = unit.Size(sectors * sector)
	return i, checkSize(i)
}

// describe makes a descriptor of one sparse extent, in memory, for reading.
func describe(sectors int64, name string) (*os.File, error) {
	fd, err := unix.MemfdCreate("descriptor", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fault.Internalf("make a descriptor: %w", err)
	}
	f := os.NewFile(uintptr(fd), "descriptor")
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s\nversion=1\nCID=fffffffe\nparentCID=%s\ncreateType=\"twoGbMaxExtentSparse\"\nRW %d SPARSE %q\n", vmdkText, noParent, sectors, name)
	if err = errors.Join(err, f.Truncate(2*sector)); err != nil { // it is followed by zeros
		return nil, fault.Internalf("write a descriptor: %w", err)
	}
	// Once more, for reading only: QEMU takes no other for what it only reads.
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fault.Internalf("open a descriptor: %w", err)
	}
	return again, nil
}
