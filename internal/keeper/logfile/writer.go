package logfile

import (
	"encoding/binary"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Writer appends records to the log in Dir. It allocates nothing per record and
// is for one goroutine.
type Writer struct {
	Dir   string
	Size  int64 // of one file, at least MinSize
	Files int   // at least 1

	fd     int // 0: none is open
	size   int64
	number uint64
	lost   int64 // bytes not yet noted in the log
	total  int64 // bytes ever lost
	retry  int64 // no earlier than this is opening tried again
	head   [recordHead]byte
	tail   [recordTail]byte
	iov    [3]unix.Iovec
}

// reopenAfter keeps a log that cannot be opened from being tried for every
// piece of output. Unit: nanoseconds.
const reopenAfter = 1e9

// Lost returns how many bytes of output could not be stored so far.
func (w *Writer) Lost() int64 { return w.total }

// Append stores data as one record, or as several where it is long, or counts
// it as lost. at is unix nanoseconds.
func (w *Writer) Append(s Stream, at int64, data []byte) {
	most := int(min(int64(MaxData), max(w.Size, MinSize)-fileHead-overhead))
	for len(data) > 0 {
		part := data[:min(len(data), most)]
		data = data[len(part):]
		if err := w.store(s, at, part); err != nil {
			w.lost += int64(len(part))
			w.total += int64(len(part))
		}
	}
}

func (w *Writer) store(s Stream, at int64, data []byte) error {
	if err := w.open(at); err != nil {
		return err
	}
	if w.lost > 0 {
		if err := w.put(Lost, at, []byte(strconv.FormatInt(w.lost, 10))); err != nil {
			return err
		}
		w.lost = 0
	}
	return w.put(s, at, data)
}

// put writes one record, into the next file where this one is full.
func (w *Writer) put(s Stream, at int64, data []byte) error {
	if w.size+int64(len(data))+overhead > max(w.Size, MinSize) {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	putRecordHead(w.head[:], s, at, len(data))
	putRecordTail(w.tail[:], w.head[:], data)
	w.iov[0].Base = &w.head[0]
	w.iov[0].SetLen(recordHead)
	w.iov[1].Base = unsafe.SliceData(data)
	w.iov[1].SetLen(len(data))
	w.iov[2].Base = &w.tail[0]
	w.iov[2].SetLen(recordTail)
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(w.fd), uintptr(unsafe.Pointer(&w.iov)), 3)
	w.iov[1].Base = nil
	if errno == 0 && int(n) == len(data)+overhead {
		w.size += int64(n)
		return nil
	}
	// A disk without room takes a part: what was taken must not stay.
	if err := unix.Ftruncate(w.fd, w.size); err != nil {
		w.Close()
	}
	if errno == 0 {
		return unix.ENOSPC
	}
	return errno
}

// open opens the newest file where it is whole and has room, else starts the next.
func (w *Writer) open(at int64) error {
	if w.fd != 0 {
		return nil
	}
	if w.Dir == "" || at < w.retry {
		return unix.ENOENT
	}
	err := w.resume()
	if err != nil {
		err = w.rotate()
	}
	if err != nil {
		w.retry = at + reopenAfter
	}
	return err
}

// resume continues the newest file if its last record is whole.
func (w *Writer) resume() error {
	w.number = w.newest()
	fd, err := unix.Open(name(w.Dir, 0), unix.O_RDWR|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	size, err := lastRecord(fd)
	if err != nil {
		unix.Close(fd)
		return err
	}
	w.fd, w.size = fd, size
	return nil
}

// lastRecord returns the file's size if it ends in a whole record or in its head.
func lastRecord(fd int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	var first [fileHead]byte
	if n, err := unix.Pread(fd, first[:], 0); err != nil || n != fileHead {
		return 0, errTorn
	}
	if _, ok := parseFileHead(first[:]); !ok {
		return 0, errTorn
	}
	if st.Size == fileHead {
		return st.Size, nil
	}
	var tail [recordTail]byte
	if st.Size < fileHead+overhead {
		return 0, errTorn
	}
	if n, err := unix.Pread(fd, tail[:], st.Size-recordTail); err != nil || n != recordTail {
		return 0, errTorn
	}
	whole := int64(binary.LittleEndian.Uint32(tail[4:]))
	if whole < overhead || whole > MaxData+overhead || st.Size-whole < fileHead {
		return 0, errTorn
	}
	b := make([]byte, whole)
	if n, err := unix.Pread(fd, b, st.Size-whole); err != nil || int64(n) != whole {
		return 0, errTorn
	}
	if _, n, err := parse(b); err != nil || int64(n) != whole {
		return 0, errTorn
	}
	return st.Size, nil
}

// newest returns the number of the newest file that there is, 0 for none.
func (w *Writer) newest() uint64 {
	for i := range max(w.Files, 1) {
		fd, err := unix.Open(name(w.Dir, i), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		var head [fileHead]byte
		n, _ := unix.Pread(fd, head[:], 0)
		unix.Close(fd)
		if number, ok := parseFileHead(head[:max(n, 0)]); ok {
			return number
		}
	}
	return 0
}

// rotate starts a new file, gives the others the next name and drops the oldest.
// The new one is made first, so that a full disk costs no older output.
func (w *Writer) rotate() error {
	w.Close()
	fresh := w.Dir + "/log.new"
	fd, err := unix.Open(fresh, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}
	var head [fileHead]byte
	putFileHead(head[:], w.number+1)
	n, err := unix.Write(fd, head[:])
	if err == nil && n != fileHead {
		err = unix.ENOSPC
	}
	for i := max(w.Files, 1) - 2; i >= 0 && err == nil; i-- {
		if err = unix.Rename(name(w.Dir, i), name(w.Dir, i+1)); err == unix.ENOENT {
			err = nil
		}
	}
	if err == nil {
		err = unix.Rename(fresh, name(w.Dir, 0))
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	w.fd, w.size = fd, fileHead
	w.number++
	return nil
}

// Close closes the file; a later Append opens it again.
func (w *Writer) Close() {
	if w.fd != 0 {
		unix.Close(w.fd)
		w.fd = 0
	}
}
