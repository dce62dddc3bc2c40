package image

import (
	"encoding/binary"
	"io"

	"github.com/strata-project/strata/internal/unit"
)

// Source of all that follows: Microsoft, [MS-VHDX], 2.2 and 2.6.
const (
	vhdxMagic      = "vhdxfile"
	regionsAt      = 192 << 10
	regionsAgain   = 256 << 10
	regionEntries  = 2047
	metadataMax    = 2047
	regionEntry    = 32
	metadataEntry  = 32
	hasParent      = 1 << 1
	metadataRegion = "\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e"
	fileParameters = "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b"
	virtualSize    = "\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8"
)

func readVHDX(r io.ReaderAt) (Info, error) {
	i := Info{Format: VHDX}
	at, err := regionOf(r, regionsAt)
	if err != nil {
		if at, err = regionOf(r, regionsAgain); err != nil {
			return i, err
		}
	}
	head, err := readAt(r, at, 32)
	if err != nil {
		return i, err
	}
	le := binary.LittleEndian
	count := int64(le.Uint16(head[10:]))
	if string(head[:8]) != "metadata" || count > metadataMax {
		return i, damaged(VHDX, "its metadata is none")
	}
	table, err := readAt(r, at+32, count*metadataEntry)
	if err != nil {
		return i, err
	}
	for e := table; len(e) >= metadataEntry; e = e[metadataEntry:] {
		id, offset := string(e[:16]), int64(le.Uint32(e[16:]))
		if id != fileParameters && id != virtualSize {
			continue
		}
		item, err := readAt(r, at+offset, 8)
		switch {
		case err != nil:
			return i, err
		case id == fileParameters && le.Uint32(item[4:])&hasParent != 0:
			return i, refused("merge it with its parent first: Merge-VHD", "the vhdx image is what has changed since another one")
		case id == virtualSize:
			if le.Uint64(item) > uint64(maxSize) {
				return i, damaged(VHDX, "its disk has %d bytes", le.Uint64(item))
			}
			i.Size = unit.Size(le.Uint64(item))
		}
	}
	return i, checkSize(i)
}

// regionOf returns where a region table says that the metadata is.
func regionOf(r io.ReaderAt, table int64) (int64, error) {
	head, err := readAt(r, table, 16)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	count := int64(le.Uint32(head[8:]))
	if string(head[:4]) != "regi" || count > regionEntries {
		return 0, damaged(VHDX, "its table of regions is none")
	}
	entries, err := readAt(r, table+16, count*regionEntry)
	if err != nil {
		return 0, err
	}
	for e := entries; len(e) >= regionEntry; e = e[regionEntry:] {
		if string(e[:16]) == metadataRegion {
			if at := le.Uint64(e[16:]); at < uint64(maxSize) {
				return int64(at), nil
			}
		}
	}
	return 0, damaged(VHDX, "its table of regions has no metadata")
}
