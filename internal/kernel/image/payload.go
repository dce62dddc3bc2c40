package image

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"

	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/template/inflate"
	"github.com/strata-project/strata/internal/unit"
)

// The first bytes of formats that package inflate does not know, or not as Linux
// uses them. Source: Linux, lib/decompress.c, and lib/decompress_unlz4.c.
var (
	magicLZ4  = []byte{0x02, 0x21, 0x4c, 0x18}
	magicLZMA = []byte{0x5d, 0x00, 0x00}
	magicLZO  = []byte{0x89, 'L', 'Z', 'O'}
	magicXZ   = []byte{0xfd, '7', 'z', 'X', 'Z', 0}
)

// sizeTail is the size of the unpacked kernel that the build puts after all but
// gzip, whose own tail has it. Source: Linux, scripts/Makefile.lib, size_append.
const sizeTail = 4

// payload returns the unpacked content of a bzImage.
func payload(r io.ReaderAt, h setup) (io.Reader, error) {
	b := bufio.NewReaderSize(io.NewSectionReader(r, h.payload, h.length), 256*unit.KiB)
	head, err := b.Peek(8)
	if err != nil {
		return nil, fault.Invalidf("the kernel's payload is truncated")
	}
	tailless := func() *bufio.Reader {
		return bufio.NewReaderSize(io.NewSectionReader(r, h.payload, max(0, h.length-sizeTail)), 256*unit.KiB)
	}
	switch {
	case bytes.HasPrefix(head, magicLZ4):
		return &lz4Reader{r: tailless()}, nil
	case bytes.HasPrefix(head, magicXZ):
		return newXZ(tailless())
	case bytes.HasPrefix(head, magicLZMA):
		if binary.LittleEndian.Uint32(head[1:]) > MaxWindow {
			return nil, fault.Invalidf("the kernel's lzma window is above %s", unit.Size(MaxWindow))
		}
		d, err := lzma.NewReader(tailless())
		if err != nil {
			return nil, broken("lzma", err)
		}
		return blaming{d, "lzma"}, nil
	case bytes.HasPrefix(head, magicLZO):
		return nil, fault.Unablef("the kernel is compressed with lzo, which strata does not read").Help("unpack it with the kernel's own scripts/extract-vmlinux")
	case isELF(head):
		return b, nil
	}
	// gzip and bzip2 end by themselves, zstd would take the tail for a frame.
	plain, format, err := inflate.Reader(b)
	if err == nil && format == inflate.Zstd {
		plain, format, err = inflate.Reader(tailless())
	}
	if err != nil {
		return nil, err
	}
	if format == inflate.None {
		return nil, fault.Invalidf("the kernel's payload has no known compression")
	}
	return plain, nil // its memory is let go by the collector: no decoder here has a goroutine
}

func broken(format string, err error) error {
	return fault.Invalidf("the kernel's %s stream is broken: %w", format, err)
}

// blaming gives a decoder's errors their kind.
type blaming struct {
	r      io.Reader
	format string
}

func (b blaming) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = broken(b.format, err)
	}
	return n, err
}

// lz4Block is how much a block of the legacy format unpacks to at most.
// Source: lz4's doc/lz4_Frame_format.md, "Legacy frame".
const lz4Block = 8 * unit.MiB

// lz4Reader reads the legacy format of lz4, which is what Linux packs with.
type lz4Reader struct {
	r     *bufio.Reader
	begun bool
	in    []byte
	out   []byte // unpacked block
	ready []byte // what of it is not yet read
}

func (l *lz4Reader) Read(p []byte) (int, error) {
	for len(l.ready) == 0 {
		if err := l.block(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.ready)
	l.ready = l.ready[n:]
	return n, nil
}

func (l *lz4Reader) block() error {
	var word [4]byte
	for {
		n, err := io.ReadFull(l.r, word[:])
		if n == 0 && err == io.EOF && l.begun {
			return io.EOF
		}
		if err != nil {
			return broken("lz4", io.ErrUnexpectedEOF)
		}
		if !bytes.Equal(word[:], magicLZ4) {
			break
		}
		l.begun = true // frames may follow one another
	}
	size := int64(binary.LittleEndian.Uint32(word[:]))
	if size == 0 || size > int64(lz4.CompressBlockBound(int(lz4Block))) {
		return fault.Invalidf("the kernel's lz4 stream is broken: a block of %d bytes", size)
	}
	if l.out == nil {
		l.in, l.out = make([]byte, lz4.CompressBlockBound(int(lz4Block))), make([]byte, lz4Block)
	}
	if _, err := io.ReadFull(l.r, l.in[:size]); err != nil {
		return broken("lz4", io.ErrUnexpectedEOF)
	}
	n, err := lz4.UncompressBlock(l.in[:size], l.out)
	if err != nil {
		return broken("lz4", err)
	}
	l.ready = l.out[:n]
	return nil
}
