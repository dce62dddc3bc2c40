package image

import (
	"bytes"
	"encoding/binary"

	"github.com/strata-project/strata/internal/unit"
)

// Source of all that follows: VirtualBox, src/VBox/Storage/VDICore.h, and QEMU,
// block/vdi.c, for what it takes of it.
const (
	vdiMagicAt = 0x40
	vdiMagic   = 0xbeda107f
	vdiHeader  = 0x1c8
	vdiVersion = 0x00010001
	vdiDynamic = 1
	vdiStatic  = 2
	vdiBlock   = 1 << 20
)

func readVDI(head []byte) (Info, error) {
	i := Info{Format: VDI}
	le := binary.LittleEndian
	version, kind := le.Uint32(head[0x44:]), le.Uint32(head[0x4c:])
	size, block, blocks := le.Uint64(head[0x170:]), le.Uint32(head[0x178:]), le.Uint32(head[0x180:])
	var none [16]byte
	switch {
	case version != vdiVersion:
		return i, refused("convert it first: VBoxManage clonemedium --format VMDK", "the vdi image has version %#x, and %#x is read", version, vdiVersion)
	case kind != vdiDynamic && kind != vdiStatic || !bytes.Equal(head[0x1a8:0x1b8], none[:]) || !bytes.Equal(head[0x1b8:0x1c8], none[:]):
		return i, refused("give a full clone: VBoxManage clonemedium", "the vdi image is what has changed since another one")
	case block != vdiBlock:
		return i, refused("convert it first: VBoxManage clonemedium --format VMDK", "the vdi image has blocks of %d bytes, and %d are read", block, vdiBlock)
	case size > uint64(maxSize) || uint64(blocks) != (size+vdiBlock-1)/vdiBlock:
		return i, damaged(VDI, "%d blocks for a disk of %d bytes", blocks, size)
	}
	i.Size = unit.Size((size + sector - 1) &^ (sector - 1)) // as QEMU has it
	return i, checkSize(i)
}
