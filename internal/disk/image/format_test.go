package image

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

func TestAFileIsWhatItsContentSays(t *testing.T) {
	for sentence, c := range map[string]struct {
		file []byte
		want Format
		size unit.Size
	}{
		"a qcow2 image of version 2":        {qcow2(2, nil), QCOW2, unit.GiB},
		"a qcow2 image of version 3":        {qcow2(3, nil), QCOW2, unit.GiB},
		"a qcow2 image with compression":    {qcow2(3, func(h []byte) { h[79] = 1 << 3 }), QCOW2, unit.GiB},
		"a qcow2 image over another":        {qcow2(3, over("base.img", "raw")), QCOW2, unit.GiB},
		"a qcow2 image with a strange note": {qcow2(3, func(h []byte) { extension(h, 0x6803f857, "notes") }), QCOW2, unit.GiB},
		"a sparse vmdk":                     {vmdk(2048, textHead+`RW 2048 SPARSE "any"`), VMDK, unit.MiB},
		"a stretch of a vmdk":               {vmdk(2048, ""), VMDK, unit.MiB},
		"a vmdk in other files":             {extents(`RW 2048 FLAT "a-flat.vmdk" 0`, `RW 1024 SPARSE "b.vmdk"`), VMDK, 1536 * unit.KiB},
		"a vdi image":                       {vdi(nil), VDI, 3 * unit.MiB},
		"a vhdx image":                      {vhdx(nil), VHDX, 5 * unit.GiB},
		"a vhdx image with one table gone":  {vhdx(func(h []byte) { copy(h[regionsAgain:], h[regionsAt:regionsAt+64]); clear(h[regionsAt : regionsAt+64]) }), VHDX, 5 * unit.GiB},
		"an ISO":                            {iso(), ISO, 64 * unit.KiB},
		"a disk with a boot sector":         {disk(1<<20, ""), Raw, unit.MiB},
		"a boot sector":                     {disk(512, ""), Raw, 512},
		"a disk with a GPT":                 {append(make([]byte, 512), append([]byte("EFI PART"), make([]byte, 504)...)...), Raw, unit.KiB},
	} {
		t.Run(sentence, func(t *testing.T) {
			i, err := Detect(bytes.NewReader(c.file), int64(len(c.file)))
			if err != nil || i.Format != c.want || i.Size != c.size {
				t.Errorf("got %s of %s, %v", i.Format, i.Size, err)
			}
		})
	}
	i, _ := Detect(bytes.NewReader(qcow2(3, over("base.img", "raw"))), 1<<16)
	if i.Backing != (Backing{"base.img", Raw}) {
		t.Errorf("it lies over %+v", i.Backing)
	}
}

func TestWhatIsNoImageIsRefusedByName(t *testing.T) {
	be, le := binary.BigEndian, binary.LittleEndian
	for sentence, c := range map[string]struct {
		file []byte
		says string
		help string
	}{
		"nothing":                      {nil, "no disk image that is known", "formats: raw, qcow2, vmdk, vdi, vhdx, iso"},
		"a text":                       {[]byte("hello, world\n"), "no disk image that is known", "say format raw"},
		"an empty disk":                {make([]byte, 1<<20), "has no partition table", "say format raw"},
		"a disk with half a sector":    {disk(1000, ""), "no whole number of sectors", ""},
		"a gzip file":                  {[]byte("\x1f\x8b\x08 and so on"), "compressed by gzip", "gunzip"},
		"an OVA":                       {append(make([]byte, 257), "ustar and so on"...), "a tar archive, or an OVA", "tar xf"},
		"a LUKS disk":                  {[]byte("LUKS\xba\xbe\x00\x02"), "encrypted", "format raw"},
		"qcow version 1":               {qcow2(1, nil), "qcow version 1", "convert"},
		"an encrypted qcow2":           {qcow2(3, func(h []byte) { be.PutUint32(h[32:], 2) }), "is encrypted", "decrypt"},
		"a qcow2 with data elsewhere":  {qcow2(3, func(h []byte) { h[79] = qcow2Data }), "keeps its data in another file", "convert"},
		"a qcow2 that names data":      {qcow2(3, func(h []byte) { extension(h, extensionData, "/etc/shadow") }), "names another file", "convert"},
		"a qcow2 that is damaged":      {qcow2(3, func(h []byte) { h[79] = qcow2Corrupt }), "it says so itself", "qemu-img check"},
		"a qcow2 of the future":        {qcow2(3, func(h []byte) { h[72] = 1 }), "features that are not known", "convert"},
		"a qcow2 of strange clusters":  {qcow2(3, func(h []byte) { be.PutUint32(h[20:], 40) }), "clusters of 2^40", ""},
		"a qcow2 that is too large":    {qcow2(3, func(h []byte) { be.PutUint64(h[24:], 1<<62) }), "its disk has", ""},
		"a qcow2 without a disk":       {qcow2(3, func(h []byte) { be.PutUint64(h[24:], 0) }), "its disk has 0", ""},
		"a qcow2 with a long name":     {qcow2(3, func(h []byte) { be.PutUint64(h[8:], 512); be.PutUint32(h[16:], 5000) }), "a name of 5000", ""},
		"a qcow2 with a name far away": {qcow2(3, func(h []byte) { be.PutUint64(h[8:], 1<<40); be.PutUint32(h[16:], 5) }), "a name of 5", ""},
		"a qcow2 with a long note":     {qcow2(3, func(h []byte) { be.PutUint32(h[104:], 7); be.PutUint32(h[108:], 1<<31) }), "a header extension of", ""},
		"a qcow2 with a huge header":   {qcow2(3, func(h []byte) { be.PutUint32(h[100:], 1<<31) }), "a header of", ""},
		"a qcow2 that ends":            {qcow2(3, nil)[:50], "ends in its header", ""},
		"a vmdk of a snapshot":         {vmdk(2048, strings.ReplaceAll(textHead, "ffffffff", "12341234")), "what has changed since", "full clone"},
		"a vmdk descriptor of one":     {[]byte(strings.ReplaceAll(textHead, "ffffffff", "12341234") + `RW 1 FLAT "a" 0`), "what has changed since", "full clone"},
		"a vmdk without extents":       {extents(), "names no extent", ""},
		"a vmdk on a device":           {extents(`RW 2048 VMFSRDM "/dev/sda"`), "an extent of kind VMFSRDM", ""},
		"a vmdk with a hole":           {extents(`RW 2048 ZERO`), "an extent of kind ZERO", ""},
		"a vmdk in a thousand files":   {extents(strings.Split(strings.Repeat("RW 2048 FLAT \"a\" 0\n", 1000), "\n")...), "129 extents", ""},
		"a vmdk without a disk":        {vmdk(0, textHead), "its disk has 0", ""},
		"a vmdk with a huge text":      {func() []byte { h := vmdk(2048, textHead); le.PutUint64(h[36:], 1<<40); return h }(), "a descriptor of", ""},
		"a vmdk descriptor too large":  {append(extents(), make([]byte, 1<<20)...), "a descriptor of", ""},
		"a vdi of a snapshot":          {vdi(func(h []byte) { h[0x1b8] = 1 }), "what has changed since", "clonemedium"},
		"a vdi that is one":            {vdi(func(h []byte) { le.PutUint32(h[0x4c:], 4) }), "what has changed since", "clonemedium"},
		"a vdi of another version":     {vdi(func(h []byte) { h[0x44] = 9 }), "has version", ""},
		"a vdi of strange blocks":      {vdi(func(h []byte) { le.PutUint32(h[0x178:], 7) }), "blocks of 7 bytes", ""},
		"a vdi with few blocks":        {vdi(func(h []byte) { le.PutUint32(h[0x180:], 1) }), "1 blocks for a disk", ""},
		"a vhdx of a snapshot":         {vhdx(func(h []byte) { h[1<<20+64<<10+4] = hasParent }), "what has changed since", "Merge-VHD"},
		"a vhdx without tables":        {vhdx(func(h []byte) { clear(h[regionsAt : regionsAt+64]) }), "its table of regions is none", ""},
		"a vhdx without metadata":      {vhdx(func(h []byte) { clear(h[1<<20 : 1<<20+32]) }), "its metadata is none", ""},
		"a vhdx that ends":             {vhdx(nil)[:1<<20], "ends at", "the whole file"},
		"a vhdx that is too large":     {vhdx(func(h []byte) { h[1<<20+64<<10+15] = 0x7f }), "its disk has", ""},
		"a vhdx without a disk":        {vhdx(func(h []byte) { clear(h[1<<20+32 : 1<<20+96]) }), "its disk has 0", ""},
	} {
		t.Run(sentence, func(t *testing.T) {
			i, err := Detect(bytes.NewReader(c.file), int64(len(c.file)))
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) || !strings.Contains(fault.All(err)[0].Hint, c.help) {
				t.Errorf("got %+v, %v", i, err)
			}
		})
	}
}

func FuzzDetect(f *testing.F) {
	for _, seed := range [][]byte{
		qcow2(2, nil), qcow2(3, over("base.img", "raw")), vmdk(2048, textHead), extents(`RW 2048 FLAT "a" 0`), vdi(nil), iso(), disk(1024, ""),
	} {
		f.Add(seed[:min(len(seed), 34<<10)])
	}
	whole := vhdx(nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, at := range []int64{0, regionsAt, 1 << 20} { // what is there, or in the middle of a vhdx
			file := patched{whole, data, at}
			i, err := Detect(file, file.size())
			if err != nil {
				continue
			}
			if i.Size <= 0 || i.Size > maxSize || i.Size%sector != 0 && i.Format != QCOW2 && i.Format != VHDX || len(i.extents) > maxExtents || len(i.Backing.Name) > maxName {
				t.Errorf("it is taken for %+v", i)
			}
		}
	})
}

// patched is a file with other content from at on.
type patched struct {
	whole, data []byte
	at          int64
}

func (p patched) size() int64 { return p.at + int64(len(p.data)) }

func (p patched) ReadAt(b []byte, at int64) (n int, err error) {
	if at < p.at {
		n = copy(b, p.whole[at:p.at])
	}
	if n < len(b) && at+int64(n) < p.size() {
		n += copy(b[n:], p.data[at+int64(n)-p.at:])
	}
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}
