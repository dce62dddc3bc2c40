package image

import (
	"encoding/binary"
	"fmt"
)

// Headers as their formats have them, for tests to damage.

func qcow2(version uint32, change func(h []byte)) []byte {
	h := make([]byte, 1<<16)
	copy(h, qcow2Magic)
	be := binary.BigEndian
	be.PutUint32(h[4:], version)
	be.PutUint32(h[20:], 16)
	be.PutUint64(h[24:], 1<<30)
	be.PutUint32(h[36:], 2)
	if version == 3 {
		be.PutUint32(h[96:], 4)
		be.PutUint32(h[100:], qcow2Header3)
	}
	if change != nil {
		change(h)
	}
	return h
}

// over has an image lie over another one.
func over(name, format string) func(h []byte) {
	return func(h []byte) {
		be := binary.BigEndian
		at := be.Uint32(h[100:])
		if format != "" {
			extension(h, extensionBacking, format)
			at += 8 + uint32(len(format)+7)&^7
		}
		at += 8
		be.PutUint64(h[8:], uint64(at))
		be.PutUint32(h[16:], uint32(len(name)))
		copy(h[at:], name)
	}
}

func extension(h []byte, kind uint32, text string) {
	at := binary.BigEndian.Uint32(h[100:])
	binary.BigEndian.PutUint32(h[at:], kind)
	binary.BigEndian.PutUint32(h[at+4:], uint32(len(text)))
	copy(h[at+8:], text)
}

const textHead = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"custom\"\n"

func vmdk(sectors uint64, text string) []byte {
	h := make([]byte, 1<<16)
	copy(h, vmdkMagic)
	le := binary.LittleEndian
	le.PutUint32(h[4:], 1)
	le.PutUint64(h[12:], sectors)
	le.PutUint64(h[20:], 128)
	if text != "" {
		le.PutUint64(h[28:], 1)
		le.PutUint64(h[36:], 20)
		copy(h[sector:], text)
	}
	return h
}

func vdi(change func(h []byte)) []byte {
	h := make([]byte, 1<<16)
	le := binary.LittleEndian
	le.PutUint32(h[vdiMagicAt:], vdiMagic)
	le.PutUint32(h[0x44:], vdiVersion)
	le.PutUint32(h[0x4c:], vdiDynamic)
	le.PutUint64(h[0x170:], 3<<20)
	le.PutUint32(h[0x178:], vdiBlock)
	le.PutUint32(h[0x180:], 3)
	if change != nil {
		change(h)
	}
	return h
}

func vhdx(change func(h []byte)) []byte {
	h := make([]byte, 2<<20)
	copy(h, vhdxMagic)
	le := binary.LittleEndian
	copy(h[regionsAt:], "regi")
	le.PutUint32(h[regionsAt+8:], 1)
	copy(h[regionsAt+16:], metadataRegion)
	le.PutUint64(h[regionsAt+32:], 1<<20)
	copy(h[1<<20:], "metadata")
	le.PutUint16(h[1<<20+10:], 2)
	entry := func(n int, id string, at uint32) {
		e := h[1<<20+32+n*metadataEntry:]
		copy(e, id)
		le.PutUint32(e[16:], at)
	}
	entry(0, fileParameters, 64<<10)
	entry(1, virtualSize, 64<<10+8)
	le.PutUint32(h[1<<20+64<<10:], 1<<25)
	le.PutUint64(h[1<<20+64<<10+8:], 5<<30)
	if change != nil {
		change(h)
	}
	return h
}

func disk(size int, label string) []byte {
	d := make([]byte, size)
	d[510], d[511] = 0x55, 0xaa
	copy(d, label)
	return d
}

func iso() []byte {
	d := disk(64<<10, "") // a hybrid one, which has a partition table as well
	copy(d[32<<10:], "\x01CD001\x01")
	return d
}

func extents(lines ...string) []byte {
	text := textHead
	for _, l := range lines {
		text += l + "\n"
	}
	return []byte(text + fmt.Sprintf("ddb.adapterType = %q\n", "ide"))
}
