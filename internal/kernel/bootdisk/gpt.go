package bootdisk

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"
)

// The tables of partitions. Source: UEFI 2.10, 5.2.3 (protective MBR), 5.3 (GPT).
const (
	gptSignature = "EFI PART"
	gptRevision  = 0x00010000
	gptHeader    = 92
	gptEntries   = 128
	gptEntry     = 128
	gptTable     = gptEntries * gptEntry / sector // sectors
	gptTail      = gptTable + 1

	mbrRoom      = 440 // bytes of code before the disk's signature
	mbrEntry     = 446
	protectiveOS = 0xee
)

// Kinds of partitions, as they stand on the disk.
// Sources: UEFI 2.10, 5.3.3; GRUB's manual, "BIOS installation".
var (
	systemPartition = [16]byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	biosPartition   = [16]byte{0x48, 0x61, 0x68, 0x21, 0x49, 0x64, 0x6f, 0x6e, 0x74, 0x4e, 0x65, 0x65, 0x64, 0x45, 0x46, 0x49}
)

// identity is where a disk's identifiers come from: what its manifest says, so that
// the same disk has the same.
type identity [sha256.Size]byte

func identify(manifest []byte) identity { return sha256.Sum256(manifest) }

// guid returns the identifier of the disk (0) or one of its partitions: a random
// UUID (version 4) by its bits. Source: RFC 9562, 4.1 and 5.4.
func (i identity) guid(of byte) [16]byte {
	sum := sha256.Sum256(append(i[:], of))
	g := [16]byte(sum[:16])
	g[7] = g[7]&0x0f | 0x40 // the third word is stored little-endian
	g[8] = g[8]&0x3f | 0x80
	return g
}

// serial returns the file system's.
func (i identity) serial() uint32 { return binary.LittleEndian.Uint32(i[:]) }

// protective is the first sector: code, and one partition over all of the disk.
func protective(code []byte, sectors int64) []byte {
	b := make([]byte, sector)
	copy(b[:mbrRoom], code)
	e := b[mbrEntry:]
	copy(e[1:], []byte{0x00, 0x02, 0x00, protectiveOS, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(sectors-1))
	binary.LittleEndian.PutUint16(b[sector-2:], bootFlag)
	return b
}

// tables returns what follows the first sector, and what ends the disk.
func tables(sectors, volume int64, id identity) (primary, backup []byte) {
	table := make([]byte, gptTable*sector)
	entry(table, systemPartition, id.guid(1), partitionLBA, partitionLBA+volume-1, "EFI system")
	entry(table[gptEntry:], biosPartition, id.guid(2), codeLBA, codeLBA+codeSectors+dataSectors-1, "BIOS boot")
	header := func(own, other, entries int64) []byte {
		b := make([]byte, sector)
		le := binary.LittleEndian
		copy(b, gptSignature)
		le.PutUint32(b[8:], gptRevision)
		le.PutUint32(b[12:], gptHeader)
		le.PutUint64(b[24:], uint64(own))
		le.PutUint64(b[32:], uint64(other))
		le.PutUint64(b[40:], codeLBA)
		le.PutUint64(b[48:], uint64(sectors-gptTail-1))
		disk := id.guid(0)
		copy(b[56:], disk[:])
		le.PutUint64(b[72:], uint64(entries))
		le.PutUint32(b[80:], gptEntries)
		le.PutUint32(b[84:], gptEntry)
		le.PutUint32(b[88:], crc32.ChecksumIEEE(table))
		le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:gptHeader]))
		return b
	}
	primary = append(header(1, sectors-1, 2), table...)
	backup = append(table[:len(table):len(table)], header(sectors-1, 1, sectors-gptTail)...)
	return primary, backup
}

func entry(b []byte, kind, id [16]byte, first, last int64, name string) {
	copy(b, kind[:])
	copy(b[16:], id[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(first))
	binary.LittleEndian.PutUint64(b[40:], uint64(last))
	for i, c := range utf16.Encode([]rune(name)) {
		binary.LittleEndian.PutUint16(b[56+2*i:], c)
	}
}
