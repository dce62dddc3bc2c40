package image

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Linux packs x86 kernels with xz and its filter for x86 code, which the usual
// decoder does not have. Such a file has one stream with one block.
// Source: Linux, scripts/xz_wrap.sh; the .xz file format 1.2.1, sections 2.1.1, 3.1 and 5.3.
const (
	xzStreamHeader = 12
	xzLZMA2        = 0x21
	xzX86          = 0x04
	xzHasSizes     = 0xc0
	xzFilters      = 0x03
	xzMaxDictBits  = 40
)

// newXZ returns the unpacked content of the first block. That it is whole is seen
// by LZMA2's own end, and that it is right by what it unpacks to.
func newXZ(r io.Reader) (io.Reader, error) {
	head := make([]byte, xzStreamHeader+1)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, broken("xz", io.ErrUnexpectedEOF)
	}
	size := (int(head[xzStreamHeader]) + 1) * 4
	if size == 4 {
		return nil, fault.Invalidf("the kernel's xz stream is empty")
	}
	rest := make([]byte, size-1)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, broken("xz", io.ErrUnexpectedEOF)
	}
	x86, window, err := xzBlock(rest)
	if err != nil {
		return nil, err
	}
	d, err := lzma.Reader2Config{DictCap: window}.NewReader2(r)
	if err != nil {
		return nil, broken("xz", err)
	}
	plain := blaming{d, "xz"}
	if x86 {
		return &x86Reader{r: plain}, nil
	}
	return plain, nil
}

// xzBlock reads a block's header after its first byte.
func xzBlock(head []byte) (x86 bool, window int, err error) {
	malformed := fault.Invalidf("the kernel's xz stream is broken: a malformed block")
	next := func() (uint64, bool) {
		v, n := binary.Uvarint(head)
		if n <= 0 {
			return 0, false
		}
		head = head[n:]
		return v, true
	}
	flags := head[0]
	head = head[1:]
	for bit := byte(0x40); bit != 0; bit <<= 1 {
		if flags&bit&xzHasSizes != 0 {
			if _, ok := next(); !ok {
				return false, 0, malformed
			}
		}
	}
	for i := 0; i <= int(flags&xzFilters); i++ {
		id, ok := next()
		length, ok2 := next()
		if !ok || !ok2 || length > uint64(len(head)) {
			return false, 0, malformed
		}
		properties := head[:length]
		head = head[length:]
		switch {
		case id == xzX86 && i == 0 && length == 0:
			x86 = true
		case id == xzLZMA2 && i == int(flags&xzFilters) && length == 1:
			bits := properties[0] & 0x3f
			size := (uint64(2) | uint64(bits&1)) << (bits/2 + 11)
			if bits > xzMaxDictBits || size > MaxWindow {
				return false, 0, fault.Invalidf("the kernel's xz window is above %s", unit.Size(MaxWindow))
			}
			return x86, max(int(size), lzma.MinDictCap), nil
		default:
			return false, 0, fault.Invalidf("the kernel is packed with an xz filter that is not known (%#x)", id)
		}
	}
	return false, 0, malformed
}

// x86Reader undoes the x86 filter, which replaces the relative targets of calls
// and jumps by absolute ones.
type x86Reader struct {
	r     io.Reader
	buf   bytes.Buffer
	ready []byte
	at    uint32 // position in the whole of what was filtered so far
	state x86State
	ended bool
}

// x86Chunk is how much is filtered at once.
const x86Chunk = 64 * unit.KiB

func (x *x86Reader) Read(p []byte) (int, error) {
	for len(x.ready) == 0 {
		if x.ended {
			return 0, io.EOF
		}
		x.buf.Next(int(x.state.done)) // what was handed out
		x.state.done = 0
		n, err := io.CopyN(&x.buf, x.r, int64(x86Chunk))
		if err != nil && err != io.EOF {
			return 0, err
		}
		x.ended = n < int64(x86Chunk)
		data := x.buf.Bytes()
		done := x.state.undo(data, x.at)
		if x.ended {
			done = len(data) // the last bytes hold no whole instruction
		}
		x.at += uint32(done)
		x.state.done = done
		x.ready = data[:done]
	}
	n := copy(p, x.ready)
	x.ready = x.ready[n:]
	return n, nil
}

// x86State goes from one piece to the next.
type x86State struct {
	done int    // of the buffer, filtered
	mask uint32 // which of the last bytes looked like an instruction's first
	last int    // where the last such byte was, relative to the next piece's start
	warm bool
}

// undo changes data, which begins at position at, in place, and returns how much
// of it is done: an instruction that may go on after it is left for the next time.
//
// An instruction is 0xe8 or 0xe9 and four bytes of target, of which the highest is
// 0x00 or 0xff. The filter passed over those where one of the bytes before it
// could have begun an instruction that this one overlaps, and the mask has what
// it must know of them. Source: XZ Utils, src/liblzma/simple/x86.c, whose
// behaviour is part of the format.
func (s *x86State) undo(data []byte, at uint32) int {
	if !s.warm {
		s.warm, s.last = true, -5
	}
	const instruction = 5
	if len(data) < instruction {
		return 0
	}
	if -s.last > instruction { // far before this piece
		s.last = -instruction
	}
	limit := len(data) - instruction
	i := 0
	for i <= limit {
		if data[i]&0xfe != 0xe8 {
			i++
			continue
		}
		gap := i - s.last
		s.last = i
		if gap > instruction {
			s.mask = 0
		} else {
			for range gap {
				s.mask = s.mask & 0x77 << 1
			}
		}
		top := data[i+4]
		if (top == 0 || top == 0xff) && x86Allowed[s.mask>>1&7] && s.mask>>1 < 0x10 {
			target := binary.LittleEndian.Uint32(data[i+1:])
			var out uint32
			for {
				out = target - (at + uint32(i) + instruction)
				if s.mask == 0 {
					break
				}
				bit := x86Bit[s.mask>>1&7]
				b := byte(out >> (24 - bit*8))
				if b != 0 && b != 0xff {
					break
				}
				target = out ^ (1<<(32-bit*8) - 1)
			}
			out &= 0x01ffffff
			if out&0x01000000 != 0 {
				out |= 0xff000000
			}
			binary.LittleEndian.PutUint32(data[i+1:], out)
			i += instruction
			s.mask = 0
			continue
		}
		i++
		s.mask |= 1
		if top == 0 || top == 0xff {
			s.mask |= 0x10
		}
	}
	s.last -= i
	return i
}

var (
	x86Allowed = [8]bool{true, true, true, false, true, false, false, false}
	x86Bit     = [8]uint32{0, 1, 2, 2, 3, 3, 3, 3}
)
