// Package cpio writes archives in the "newc" format that Linux takes as an
// initramfs. The same entries always make the same bytes: inode numbers count
// up, owners and times are zero. It does not read archives.
//
// Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
package cpio

import (
	"bufio"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

const (
	magic   = "070701"
	trailer = "TRAILER!!!"
	align   = 4
	// block is what the archive's end is padded to, as cpio(1) does.
	block = 512
	// maxSize is what a header's field holds.
	maxSize = 1<<32 - 1
)

// Writer writes one archive. The first failure stays.
type Writer struct {
	w   *bufio.Writer
	at  int64
	ino uint32
	err error
}

// NewWriter returns a writer of an empty archive.
func NewWriter(w io.Writer) *Writer { return &Writer{w: bufio.NewWriterSize(w, 256<<10)} }

// Size returns how many bytes the archive has so far.
func (w *Writer) Size() int64 { return w.at }

// Folder adds a folder; path has no leading slash, and its parents come first.
func (w *Writer) Folder(path string, perm uint32) error {
	return w.entry(header{path: path, mode: unix.S_IFDIR | perm, links: 2}, nil)
}

// Character adds the node of a character device.
func (w *Writer) Character(path string, perm, major, minor uint32) error {
	return w.entry(header{path: path, mode: unix.S_IFCHR | perm, links: 1, major: major, minor: minor}, nil)
}

// File adds a file with the next size bytes of r, which must have them.
func (w *Writer) File(path string, perm uint32, size int64, r io.Reader) error {
	return w.entry(header{path: path, mode: unix.S_IFREG | perm, links: 1, size: size}, r)
}

// Close ends the archive; it does not close what is below.
func (w *Writer) Close() error {
	w.ino = 0
	if err := w.entry(header{path: trailer, links: 1, last: true}, nil); err != nil {
		return err
	}
	w.pad(block)
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.err
}

type header struct {
	path         string
	mode, links  uint32
	size         int64
	major, minor uint32
	last         bool
}

func (w *Writer) entry(h header, r io.Reader) error {
	if w.err != nil {
		return w.err
	}
	if h.size < 0 || h.size > maxSize {
		return fmt.Errorf("%s: a file of %d bytes does not fit in a cpio archive", h.path, h.size)
	}
	ino := uint32(0)
	if !h.last {
		w.ino++
		ino = w.ino
	}
	// inode, mode, uid, gid, links, mtime, size, device (2), rdev (2), name size, check
	w.write([]byte(fmt.Sprintf("%s%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", magic,
		ino, h.mode, 0, 0, h.links, 0, h.size, 0, 0, h.major, h.minor, len(h.path)+1, 0, h.path)))
	w.pad(align)
	if h.size > 0 && w.err == nil {
		n, err := io.CopyN(w.w, r, h.size)
		w.at += n
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		w.err = err
	}
	w.pad(align)
	if w.err != nil {
		return fmt.Errorf("%s: %w", h.path, w.err)
	}
	return nil
}

func (w *Writer) write(p []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(p)
	w.at += int64(n)
	w.err = err
}

var zeros [block]byte

func (w *Writer) pad(to int64) { w.write(zeros[:(to-w.at%to)%to]) }
