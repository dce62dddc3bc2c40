package inflate

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/ulikunitz/xz"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// The .xz framing. Source: the .xz file format 1.2.1, sections 2.1, 3.1, 3.4 and
// 5.3.1; LZMA2's chunks: Linux, lib/xz/xz_dec_lzma2.c.
const (
	xzStreamHeader = 12
	xzLZMA2        = 0x21
)

// xzChecks are the sizes of a block's check by the low bits of the stream's flags.
var xzChecks = [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}

var errXZ = errors.New("broken xz framing")

// newXZ decodes one xz stream. Its decoder allocates the dictionary that each
// block's header says, so a guard before it reads the framing along.
func newXZ(r io.Reader) (io.Reader, error) {
	g := &xzGuard{r: r}
	g.next = g.stream
	return xz.ReaderConfig{SingleStream: true}.NewReader(g)
}

// xzGuard passes an xz stream on as it is, but fails before a block header that
// asks for more than MaxWindow.
type xzGuard struct {
	r     io.Reader
	ready []byte       // read and looked at, not yet passed on
	pass  int64        // bytes to pass on without looking; -1: all the rest
	next  func() error // what comes after them
	check int          // size of a block's check
	data  int64        // compressed bytes of the block so far
}

func (g *xzGuard) Read(p []byte) (int, error) {
	for len(g.ready) == 0 && g.pass == 0 {
		if err := g.next(); err != nil {
			return 0, err
		}
	}
	if len(g.ready) > 0 {
		n := copy(p, g.ready)
		g.ready = g.ready[n:]
		return n, nil
	}
	if g.pass > 0 && int64(len(p)) > g.pass {
		p = p[:g.pass]
	}
	n, err := g.r.Read(p)
	if g.pass > 0 {
		g.pass -= int64(n)
	}
	return n, err
}

// take reads n bytes to look at, which are passed on next.
func (g *xzGuard) take(n int) ([]byte, error) {
	at := len(g.ready)
	g.ready = append(g.ready, make([]byte, n)...)
	_, err := io.ReadFull(g.r, g.ready[at:])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return g.ready[at:], err
}

func (g *xzGuard) stream() error {
	head, err := g.take(xzStreamHeader)
	if err != nil {
		return err
	}
	g.check = xzChecks[head[7]&0x0f]
	g.next = g.block
	return nil
}

// block looks at a block's header, or at the index, after which all is passed on.
func (g *xzGuard) block() error {
	first, err := g.take(1)
	if err != nil {
		return err
	}
	if first[0] == 0 {
		g.pass = -1
		return nil
	}
	rest, err := g.take((int(first[0])+1)*4 - 1)
	if err != nil {
		return err
	}
	g.data, g.next = 0, g.chunk
	return checkWindow(rest)
}

// chunk looks at the header of one LZMA2 chunk.
func (g *xzGuard) chunk() error {
	control, err := g.take(1)
	if err != nil {
		return err
	}
	switch c := control[0]; {
	case c == 0: // the block's end: padding to four bytes, check
		g.data++
		g.pass = (4-g.data%4)%4 + int64(g.check)
		g.next = g.block
		return nil
	case c == 1 || c == 2: // as it is
		size, err := g.take(2)
		if err != nil {
			return err
		}
		g.pass = int64(binary.BigEndian.Uint16(size)) + 1
		g.data += 3 + g.pass
	case c >= 0x80:
		n := 4
		if c >= 0xc0 { // with new properties
			n = 5
		}
		sizes, err := g.take(n)
		if err != nil {
			return err
		}
		g.pass = int64(binary.BigEndian.Uint16(sizes[2:])) + 1
		g.data += int64(n) + 1 + g.pass
	default:
		return errXZ
	}
	return nil
}

// checkWindow reads a block header after its first byte.
func checkWindow(head []byte) error {
	flags, rest := head[0], head[1:]
	for _, bit := range []byte{0x40, 0x80} { // compressed size, uncompressed size
		if flags&bit != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return errXZ
			}
			rest = rest[n:]
		}
	}
	if flags&0x03 != 0 || len(rest) < 3 || rest[0] != xzLZMA2 || rest[1] != 1 {
		return fault.Invalidf("an xz stream with filters other than LZMA2 is not accepted").Help("pack it with the options that xz has by default")
	}
	bits := rest[2] & 0x3f
	if bits > 40 {
		return errXZ
	}
	size := (uint64(2) | uint64(bits&1)) << (bits/2 + 11)
	if size > MaxWindow {
		return fault.Invalidf("an xz dictionary of %s is above the %s that are accepted", unit.Size(size), unit.Size(MaxWindow))
	}
	return nil
}
