// Package inflate reads a stream that may be compressed. It tells gzip, xz,
// zstd and bzip2 from their first bytes, since names and media types lie, and
// bounds the memory that a hostile stream can make a decoder take. It does not
// bound the length of what comes out: its reader must.
package inflate

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

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

// skippable is how a frame of zstd begins that decoders pass over, the lower half of its first byte aside;
// pzstd writes one before each other. Source: RFC 8878, section 3.1.2.
var skippable = []byte{0x50, 0x2a, 0x4d, 0x18}

func formatOf(head []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(head, m.magic) {
			return m.format
		}
	}
	if len(head) >= len(skippable) && head[0]&0xf0 == skippable[0] && bytes.HasPrefix(head[1:], skippable[1:]) {
		return Zstd
	}
	return None
}

// Reader returns the decompressed stream of r and the format found; a stream
// of no known format is returned as it is. The caller closes it; r stays open.
// Kinds: Invalid for a broken header.
func Reader(r io.Reader) (io.ReadCloser, string, error) {
	src := &source{r: r}
	b := bufio.NewReaderSize(src, 256*unit.KiB)
	head, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	format := formatOf(head)
	out, err := open(format, b)
	if err != nil {
		return nil, format, src.blame(format, err)
	}
	return &decoder{out, src, format}, format, nil
}

// source remembers whether reading failed, so that a broken connection is not
// taken for a broken stream.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// blame gives a decoder's error its kind.
func (s *source) blame(format string, err error) error {
	var known *fault.Error
	switch {
	case s.err != nil:
		return s.err
	case errors.As(err, &known):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fault.Invalidf("a zstd window above %s is not accepted: %w", unit.Size(MaxWindow), err)
	}
	return fault.Invalidf("the %s stream is broken: %w", format, err)
}

type decoder struct {
	io.ReadCloser
	src    *source
	format string
}

func (d *decoder) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = d.src.blame(d.format, err)
	}
	return n, err
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
		x, err := newXZ(b)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(b)), nil
	}
	return io.NopCloser(b), nil
}
