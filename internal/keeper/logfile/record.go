package logfile

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strconv"
	"sync"
)

// Stream says where a record's data came from.
type Stream byte

// The streams. A terminal's output counts as Stdout.
const (
	Stdout Stream = 1
	Stderr Stream = 2
	Lost   Stream = 3 // data is the decimal number of bytes that could not be stored
)

// MaxData bounds the data of one record. Unit: bytes.
const MaxData = 64 << 10

// Sizes of the format's parts. Unit: bytes.
const (
	fileHead   = 16
	recordHead = 16
	recordTail = 8
	overhead   = recordHead + recordTail
)

const (
	magicFile   = "STRALOG1"
	magicRecord = 0xA55A
)

// MinSize is the least size of a file: one head and one short record.
const MinSize = 4096

// castagnoli is made when first needed: its tables would cost every keeper's
// start half a millisecond.
var castagnoli = sync.OnceValue(func() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) })

func checksum(head, data []byte) uint32 {
	return crc32.Update(crc32.Update(0, castagnoli(), head), castagnoli(), data)
}

// Record is a piece of output. Data is valid until the next record is read.
type Record struct {
	Time   int64 // unix nanoseconds
	Stream Stream
	Data   []byte
}

// errTorn means that what follows is no whole record.
var errTorn = errors.New("logfile: not a record")

func putFileHead(b []byte, number uint64) {
	copy(b, magicFile)
	binary.LittleEndian.PutUint64(b[8:], number)
}

func parseFileHead(b []byte) (number uint64, ok bool) {
	if len(b) < fileHead || string(b[:8]) != magicFile {
		return 0, false
	}
	number = binary.LittleEndian.Uint64(b[8:])
	return number, number > 0 && number < 1<<62
}

func putRecordHead(b []byte, s Stream, at int64, n int) {
	binary.LittleEndian.PutUint16(b, magicRecord)
	b[2], b[3] = byte(s), 0
	binary.LittleEndian.PutUint32(b[4:], uint32(n))
	binary.LittleEndian.PutUint64(b[8:], uint64(at))
}

func putRecordTail(b []byte, head, data []byte) {
	binary.LittleEndian.PutUint32(b, checksum(head, data))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(data)+overhead))
}

// parse returns the record at the start of b and how long it is; errTorn where
// there is none, and 0 without an error where b is too short to tell.
func parse(b []byte) (Record, int, error) {
	if len(b) < recordHead {
		return Record{}, 0, nil
	}
	s, n := Stream(b[2]), int64(binary.LittleEndian.Uint32(b[4:]))
	if binary.LittleEndian.Uint16(b) != magicRecord || s < Stdout || s > Lost || b[3] != 0 || n > MaxData {
		return Record{}, 0, errTorn
	}
	whole := int(n) + overhead
	if len(b) < whole {
		return Record{}, 0, nil
	}
	body, tail := b[:whole-recordTail], b[whole-recordTail:whole]
	if checksum(body, nil) != binary.LittleEndian.Uint32(tail) ||
		binary.LittleEndian.Uint32(tail[4:]) != uint32(whole) {
		return Record{}, 0, errTorn
	}
	return Record{Time: int64(binary.LittleEndian.Uint64(b[8:])), Stream: s, Data: body[recordHead:]}, whole, nil
}

func name(dir string, i int) string {
	if i == 0 {
		return dir + "/log"
	}
	return dir + "/log." + strconv.Itoa(i)
}
