package bootdisk

import (
	"context"
	"encoding/binary"
	"io"
	"strings"
)

// FAT32. Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03.
const (
	fatReserved    = 32
	fatCopies      = 2
	fatInfo        = 1
	fatBackup      = 6
	fatMedia       = 0xf8
	fatLeast       = 65525 // clusters; with fewer it would be FAT16
	fatMostPer     = 64    // sectors in a cluster: 32 KiB
	fatFirst       = 2     // the first cluster's number
	fatEnd         = 0x0fffffff
	fatEntry       = 32 // bytes of a folder's entry
	fatFolder      = 0x10
	fatArchive     = 0x20
	fatLabel       = 0x08
	fatDate        = 1<<5 | 1 // 1980-01-01: all files are of one date, or disks would differ
	fatLabelText   = "STRATA     "
	fatSectorAlign = page / sector // the clusters begin at a page of the disk's
)

// file is a file or a folder of a volume. Its clusters follow one another.
type file struct {
	name  string
	size  int64 // bytes; of a folder: counted by newVolume
	write func(ctx context.Context, w io.Writer) error
	files []*file // of a folder; nil: it is a file

	parent  *file
	cluster int64 // its first; 0: it is empty
}

func bytesFile(name string, content []byte) *file {
	return &file{name: name, size: int64(len(content)), write: func(_ context.Context, w io.Writer) error {
		_, err := w.Write(content)
		return err
	}}
}

func (f *file) folder() bool { return f.files != nil }

// volume is a file system before it is written.
type volume struct {
	root     *file
	all      []*file // in the order of their clusters, folders before what they hold
	per      int64   // sectors in a cluster
	clusters int64
	used     int64
	reserved int64 // sectors before the first table
	table    int64 // sectors of one table
	sectors  int64
	serial   uint32
}

// newVolume lays out a volume that holds files.
func newVolume(files ...*file) *volume {
	v := &volume{root: &file{files: files}}
	v.collect(v.root)
	v.per = 1
	for v.per < fatMostPer && v.count(v.per*2) >= fatLeast {
		v.per *= 2
	}
	next := int64(fatFirst)
	for _, f := range v.all {
		if n := whole(f.size, v.per*sector) / (v.per * sector); n > 0 {
			f.cluster = next
			next += n
		}
	}
	v.used = next - fatFirst
	v.clusters = max(v.used, fatLeast+16) // the border is read in several ways
	v.table = whole((v.clusters+fatFirst)*4, sector) / sector
	v.reserved = whole(fatReserved+fatCopies*v.table, fatSectorAlign) - fatCopies*v.table
	v.sectors = v.begin() + v.clusters*v.per
	return v
}

// collect counts folders' entries: those of what they hold, a label in the root,
// and two for the folder and its parent elsewhere.
func (v *volume) collect(f *file) {
	v.all = append(v.all, f)
	extra := 2
	if f == v.root {
		extra = 1
	}
	f.size = int64(len(f.files)+extra) * fatEntry
	var folders []*file
	for _, one := range f.files {
		one.parent = f
		if one.folder() {
			folders = append(folders, one)
		}
	}
	for _, one := range folders {
		v.collect(one)
	}
	for _, one := range f.files {
		if !one.folder() {
			v.all = append(v.all, one)
		}
	}
}

// count returns how many clusters of so many sectors the files take.
func (v *volume) count(per int64) int64 {
	var n int64
	for _, f := range v.all {
		n += whole(f.size, per*sector) / (per * sector)
	}
	return n
}

// begin returns the sector of the first cluster.
func (v *volume) begin() int64 { return v.reserved + fatCopies*v.table }

// sectorOf returns the first sector of a file, 0 where it is empty.
func (v *volume) sectorOf(f *file) int64 {
	if f.cluster == 0 {
		return 0
	}
	return v.begin() + (f.cluster-fatFirst)*v.per
}

// write writes all of the volume.
func (v *volume) write(ctx context.Context, w *counting) error {
	begin := w.at
	if _, err := w.Write(v.boot()); err != nil {
		return err
	}
	table := v.chains()
	for range fatCopies {
		if _, err := w.Write(table); err != nil {
			return err
		}
	}
	for _, f := range v.all {
		if f.size == 0 {
			continue
		}
		if err := w.fill(begin + v.sectorOf(f)*sector); err != nil {
			return err
		}
		content := f.write
		if f.folder() {
			content = bytesFile("", v.entries(f)).write
		}
		if err := content(ctx, w); err != nil {
			return err
		}
	}
	return w.fill(begin + v.sectors*sector)
}

// boot is what comes before the tables: the volume's description, how much is
// free, and both again.
func (v *volume) boot() []byte {
	b := make([]byte, v.reserved*sector)
	le := binary.LittleEndian
	copy(b, "\xeb\xfe\x90STRATA  ") // a jump to itself: nobody boots from here
	le.PutUint16(b[11:], sector)
	b[13] = byte(v.per)
	le.PutUint16(b[14:], uint16(v.reserved))
	b[16] = fatCopies
	b[21] = fatMedia
	le.PutUint16(b[24:], 32) // sectors of a track, and heads: nobody asks
	le.PutUint16(b[26:], 64)
	le.PutUint32(b[28:], partitionLBA)
	le.PutUint32(b[32:], uint32(v.sectors))
	le.PutUint32(b[36:], uint32(v.table))
	le.PutUint32(b[44:], uint32(v.root.cluster))
	le.PutUint16(b[48:], fatInfo)
	le.PutUint16(b[50:], fatBackup)
	b[64], b[66] = 0x80, 0x29
	le.PutUint32(b[67:], v.serial)
	copy(b[71:], fatLabelText)
	copy(b[82:], "FAT32   ")
	le.PutUint16(b[510:], bootFlag)
	info := b[fatInfo*sector:]
	copy(info, "RRaA")
	copy(info[484:], "rrAa")
	le.PutUint32(info[488:], uint32(v.clusters-v.used))
	le.PutUint32(info[492:], uint32(fatFirst+v.used-1))
	le.PutUint16(info[510:], bootFlag)
	copy(b[fatBackup*sector:], b[:2*sector])
	return b
}

// chains is one table.
func (v *volume) chains() []byte {
	b := make([]byte, v.table*sector)
	put := func(cluster int64, next uint32) { binary.LittleEndian.PutUint32(b[cluster*4:], next) }
	put(0, fatEnd&^0xff|fatMedia)
	put(1, fatEnd)
	for _, f := range v.all {
		n := whole(f.size, v.per*sector) / (v.per * sector)
		for i := f.cluster; i < f.cluster+n; i++ {
			put(i, uint32(i+1))
		}
		if n > 0 {
			put(f.cluster+n-1, fatEnd)
		}
	}
	return b
}

// entries is a folder's content.
func (v *volume) entries(f *file) []byte {
	var b []byte
	if f == v.root {
		b = append(b, fatRecord(fatLabelText, fatLabel, 0, 0)...)
	} else {
		parent := f.parent.cluster
		if f.parent == v.root {
			parent = 0
		}
		b = append(b, fatRecord(".          ", fatFolder, f.cluster, 0)...)
		b = append(b, fatRecord("..         ", fatFolder, parent, 0)...)
	}
	for _, one := range f.files {
		if one.folder() {
			b = append(b, fatRecord(shortName(one.name), fatFolder, one.cluster, 0)...)
			continue
		}
		b = append(b, fatRecord(shortName(one.name), fatArchive, one.cluster, one.size)...)
	}
	return b
}

// shortName is a name of at most 8 letters, a dot and 3, as a folder has it.
func shortName(name string) string {
	base, tail, _ := strings.Cut(name, ".")
	return (base + "        ")[:8] + (tail + "   ")[:3]
}

func fatRecord(name string, kind byte, cluster, size int64) []byte {
	b := make([]byte, fatEntry)
	le := binary.LittleEndian
	copy(b[:11], name)
	b[11] = kind
	for _, at := range []int{16, 18, 24} { // made, used, changed
		le.PutUint16(b[at:], fatDate)
	}
	le.PutUint16(b[20:], uint16(cluster>>16))
	le.PutUint16(b[26:], uint16(cluster))
	le.PutUint32(b[28:], uint32(size))
	return b
}
