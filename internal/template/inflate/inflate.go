// Package inflate reads a stream that may be compressed. It tells gzip, xz,
// zstd and bzip2 from their first bytes, since names and media types lie, and
// bounds the memory that a hostile stream can make a decoder take. It does not
// bound the length of what comes out: its reader must.
package inflate

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// The formats that are told apart.
const (
	None  = "none"
	Gzip  = "gzip"
	Zstd  = "zstd"
	XZ    = "xz"
	Bzip2 = "bzip2"
)

// MaxWindow bounds the dictionary of a zstd or xz stream. Unit: bytes.
// 128 MiB is what zstd --long and xz -9 (64 MiB) need.
const MaxWindow = 128 * unit.MiB

// magics are the first bytes of each format. Source: RFC 1952, RFC 8878, the
// .xz file format 1.2.1 section 2.1.1, and bzip2's "BZh".
var magics = []struct {
	format string
	magic  []byte
}{
	{Gzip, []byte{0x1f, 0x8b}},
	{Zstd, []byte{0x28, 0xb5, 0x2f, 0xfd}},
	{XZ, []byte{0xfd, '7', 'z', 'X', 'Z', 0}},
	{Bzip2, []byte("BZh")},
}

// Reader returns the decompressed stream of r and the format found; a stream
// of no known format is returned as it is. The caller closes it; r stays open.
// Kinds: Invalid for a broken header.
func Reader(r io.Reader) (io.ReadCloser, string, error) {
	b := bufio.NewReaderSize(r, 256*unit.KiB)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	format := None
	for _, m := range magics {
		if bytes.HasPrefix(head, m.magic) {
			format = m.format
		}
	}
	out, err := open(format, b)
	if err != nil {
		return nil, format, fault.Invalidf("read %s stream: %w", format, err)
	}
	return out, format, nil
}

func open(format string, b *bufio.Reader) (io.ReadCloser, error) {
	switch format {
	case Gzip:
		return gzip.NewReader(b)
	case Zstd:
		d, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case XZ:
		guard := &windowGuard{r: b}
		x, err := xz.NewReader(guard)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(b)), nil
	}
	return io.NopCloser(b), nil
}

// windowGuard looks at the first block header of an xz stream and refuses a
// dictionary above MaxWindow: the decoder allocates what that header says.
type windowGuard struct {
	r    io.Reader
	head []byte
	done bool
}

// xz layout up to the dictionary's size byte: 12 bytes of stream header, then
// the block header: size, flags, [sizes], filter id 0x21, length 1, properties.
// Source: the .xz file format 1.2.1, sections 2.1.1, 3.1 and 5.3.1.
const (
	xzStreamHeader = 12
	xzGuarded      = xzStreamHeader + 1024 // a block header is at most 1024 bytes
	xzLZMA2        = 0x21
)

func (g *windowGuard) Read(p []byte) (int, error) {
	if !g.done {
		g.done = true
		head := make([]byte, xzGuarded)
		n, err := io.ReadFull(g.r, head)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return 0, err
		}
		g.head = head[:n]
		if err := checkWindow(g.head); err != nil {
			return 0, err
		}
	}
	if len(g.head) > 0 {
		n := copy(p, g.head)
		g.head = g.head[n:]
		return n, nil
	}
	return g.r.Read(p)
}

func checkWindow(head []byte) error {
	if len(head) < xzStreamHeader+2 || head[xzStreamHeader] == 0 {
		return nil // no block: the decoder sees for itself
	}
	block := head[xzStreamHeader:]
	block = block[:min(len(block), (int(block[0])+1)*4)]
	flags, rest := block[1], block[2:]
	for _, bit := range []byte{0x40, 0x80} { // compressed size, uncompressed size
		if flags&bit != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return fault.Invalidf("broken xz block header")
			}
			rest = rest[n:]
		}
	}
	if len(rest) < 3 || rest[0] != xzLZMA2 || rest[1] != 1 {
		return nil // a filter that the decoder does not know either
	}
	bits := rest[2] & 0x3f
	if bits > 40 {
		return fault.Invalidf("broken xz block header")
	}
	size := (uint64(2) | uint64(bits&1)) << (bits/2 + 11)
	if size > MaxWindow {
		return fault.Invalidf("xz dictionary of %s is above the %s that are accepted", unit.Size(size), unit.Size(MaxWindow))
	}
	return nil
}
