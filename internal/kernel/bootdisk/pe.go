package bootdisk

import "encoding/binary"

// The program for UEFI. Source: Microsoft, "PE Format"; UEFI 2.10, 2.1.1.
const (
	peHeaderAt  = 0x40
	peOptional  = 240 // with 16 directories
	peHeaders   = 0x400
	peSection   = 40
	peCodeSize  = efiDataAt - efiCodeAt
	peDataSize  = dataSectors * sector
	peImageSize = efiDataAt + peDataSize
	peSize      = peHeaders + peCodeSize + peDataSize

	machineAMD64   = 0x8664
	executable     = 0x0002
	largeAddress   = 0x0020
	pe32Plus       = 0x020b
	efiApplication = 10
	nxCompatible   = 0x0100

	sectionCode = 0x60000020 // code, runs, is read
	sectionData = 0xc0000040 // initialized data, is read and written
)

// portable puts code and data, which is dataSectors long, into a program. It has no
// relocations: the code knows no address but by its own.
func portable(code, data []byte) []byte {
	b := make([]byte, peSize)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], peHeaderAt)
	h := b[peHeaderAt:]
	copy(h, "PE\x00\x00")
	le.PutUint16(h[4:], machineAMD64)
	le.PutUint16(h[6:], 2) // sections
	le.PutUint16(h[20:], peOptional)
	le.PutUint16(h[22:], executable|largeAddress)
	o := h[24:]
	le.PutUint16(o, pe32Plus)
	le.PutUint32(o[4:], peCodeSize)
	le.PutUint32(o[8:], peDataSize)
	le.PutUint32(o[16:], efiCodeAt) // entry point
	le.PutUint32(o[20:], efiCodeAt)
	le.PutUint32(o[32:], page)   // alignment in memory
	le.PutUint32(o[36:], sector) // and in the file
	le.PutUint32(o[56:], peImageSize)
	le.PutUint32(o[60:], peHeaders)
	le.PutUint16(o[68:], efiApplication)
	le.PutUint16(o[70:], nxCompatible)
	le.PutUint32(o[108:], 16) // directories, all of them empty
	section := func(i int, name string, at, size, file, flags uint32) {
		s := o[peOptional+i*peSection:]
		copy(s[:8], name)
		le.PutUint32(s[8:], size)
		le.PutUint32(s[12:], at)
		le.PutUint32(s[16:], size)
		le.PutUint32(s[20:], file)
		le.PutUint32(s[36:], flags)
	}
	section(0, ".text", efiCodeAt, peCodeSize, peHeaders, sectionCode)
	section(1, ".data", efiDataAt, peDataSize, peHeaders+peCodeSize, sectionData)
	copy(b[peHeaders:peHeaders+peCodeSize], code)
	copy(b[peHeaders+peCodeSize:], data)
	return b
}
