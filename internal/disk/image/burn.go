package image

import (
	"encoding/binary"
	"io"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// CDFile is a file of a CD that Burn writes.
type CDFile struct {
	Name string // letters, digits and one dot, 8 characters before it and 3 behind
	Data []byte
}

// The sectors of a CD with one folder. Source: ECMA-119.
const (
	cdSector     = 2048
	cdDescriptor = 16 // the system area is before it
	cdEnd        = 17
	cdPathsLow   = 18
	cdPathsHigh  = 19
	cdRoot       = 20
	cdFiles      = 21
)

// maxCDFiles is what fits into the one sector of the folder.
const maxCDFiles = 16

// Burn writes the image of a CD with some files, read-only as all CDs.
func Burn(w io.Writer, label string, files []CDFile) error {
	if len(files) > maxCDFiles {
		return fault.Invalidf("a CD of strata's own has %d files at most", maxCDFiles)
	}
	root := make([]byte, 0, cdSector)
	root = append(root, cdRecord("\x00", cdRoot, cdSector, true)...)
	root = append(root, cdRecord("\x01", cdRoot, cdSector, true)...)
	at := cdFiles
	for _, f := range files {
		name := strings.ToUpper(f.Name)
		if !strings.Contains(name, ".") {
			name += "."
		}
		root = append(root, cdRecord(name+";1", at, len(f.Data), false)...)
		at += sectors(len(f.Data))
	}
	head := make([]byte, cdFiles*cdSector)
	copy(head[cdDescriptor*cdSector:], cdVolume(label, at))
	copy(head[cdEnd*cdSector:], "\xffCD001\x01")
	// The path of the root: its name is one zero byte, its parent itself.
	low, high := head[cdPathsLow*cdSector:], head[cdPathsHigh*cdSector:]
	low[0], high[0] = 1, 1
	binary.LittleEndian.PutUint32(low[2:], cdRoot)
	binary.BigEndian.PutUint32(high[2:], cdRoot)
	low[6], high[7] = 1, 1
	copy(head[cdRoot*cdSector:], root)
	if _, err := w.Write(head); err != nil {
		return err
	}
	for _, f := range files {
		padded := make([]byte, sectors(len(f.Data))*cdSector)
		copy(padded, f.Data)
		if _, err := w.Write(padded); err != nil {
			return err
		}
	}
	return nil
}

func sectors(n int) int { return (n + cdSector - 1) / cdSector }

// both writes a number in both orders of bytes.
func both(b []byte, n int) {
	binary.LittleEndian.PutUint32(b, uint32(n))
	binary.BigEndian.PutUint32(b[4:], uint32(n))
}

// cdRecord is an entry of a folder.
func cdRecord(name string, at, size int, folder bool) []byte {
	b := make([]byte, (33+len(name)+1)&^1)
	b[0] = byte(len(b))
	both(b[2:], at)
	both(b[10:], size)
	b[18], b[19], b[20] = 126, 1, 1 // 2026-01-01, whenever it is made
	if folder {
		b[25] = 2
	}
	b[28], b[31] = 1, 1 // the first volume, in both orders
	b[32] = byte(len(name))
	copy(b[33:], name)
	return b
}

// cdVolume is the primary volume descriptor. Source: ECMA-119, 8.4.
func cdVolume(label string, total int) []byte {
	b := make([]byte, cdSector)
	copy(b, "\x01CD001\x01")
	for i := 8; i < 72; i++ {
		b[i] = ' '
	}
	copy(b[40:72], strings.ToUpper(label))
	both(b[80:], total)
	for _, i := range []int{120, 124} { // one volume, and it is the first
		b[i], b[i+3] = 1, 1
	}
	binary.LittleEndian.PutUint16(b[128:], cdSector)
	binary.BigEndian.PutUint16(b[130:], cdSector)
	both(b[132:], 10) // bytes of a path table
	binary.LittleEndian.PutUint32(b[140:], cdPathsLow)
	binary.BigEndian.PutUint32(b[148:], cdPathsHigh)
	copy(b[156:], cdRecord("\x00", cdRoot, cdSector, true))
	for i := 190; i < 813; i++ {
		b[i] = ' '
	}
	for i := 813; i < 881; i += 17 {
		copy(b[i:], "0000000000000000")
	}
	b[881] = 1
	return b
}
