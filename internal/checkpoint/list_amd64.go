package checkpoint

import (
	_ "embed"
	"encoding/binary"
	"fmt"
)

// restorer does what is on a list that follows it: testdata/restorer.s. Made by
// `as restorer.s -o r.o && objcopy -O binary -j .text r.o restorer.bin`.
//
//go:embed restorer.bin
var restorer []byte

// How a call is made. Above resultShift is the result that it must have, and one.
const (
	nearVDSO = 1 << iota // its first argument is counted from the copy's vdso
	asStack              // its first argument becomes the stack
	asThread             // it makes a thread, which goes on with the call at the sixth argument
	mayFail              // as it can go on without
)

const resultShift = 32

// call is a system call as the restorer reads it.
type call struct {
	number uint64
	args   [6]uint64
	how    uint64
}

const callSize = 64

// listRoom is how much of an image is for calls: 16,380 of them. Unit: bytes.
const listRoom = 1 << 20

// program is restorer, list and what the calls refer to, in this order, as it lies at base.
type program struct {
	base  uint64
	calls []call
	data  []byte
}

// add appends a call that must work.
func (p *program) add(number uint64, args ...uint64) { p.addAs(0, number, args...) }

// addFor appends one that must have that result.
func (p *program) addFor(result int, number uint64, args ...uint64) {
	p.addAs(uint64(result+1)<<resultShift, number, args...)
}

func (p *program) addAs(how, number uint64, args ...uint64) {
	c := call{number: number, how: how}
	copy(c.args[:], args)
	p.calls = append(p.calls, c)
}

// next is the address of the call that is added next.
func (p *program) next() uint64 {
	return p.base + uint64(len(restorer)+len(p.calls)*callSize)
}

// put has b among the data, and returns its address.
func (p *program) put(b []byte) uint64 {
	for len(p.data)%64 != 0 { // as the state of a processor must lie
		p.data = append(p.data, 0)
	}
	at := p.base + listRoom + uint64(len(p.data))
	p.data = append(p.data, b...)
	return at
}

// text is put of a string.
func (p *program) text(s string) uint64 { return p.put(append([]byte(s), 0)) }

// words is put of numbers.
func (p *program) words(all ...uint64) uint64 {
	var b []byte
	for _, w := range all {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return p.put(b)
}

// list is what is executed, up to the data.
func (p *program) list() ([]byte, error) {
	b := append([]byte(nil), restorer...)
	for _, c := range p.calls {
		b = binary.LittleEndian.AppendUint64(b, c.number)
		for _, a := range c.args {
			b = binary.LittleEndian.AppendUint64(b, a)
		}
		b = binary.LittleEndian.AppendUint64(b, c.how)
	}
	if len(b) > listRoom {
		return nil, fmt.Errorf("%d system calls are more than an image has room for", len(p.calls))
	}
	return b, nil
}

// size is how many bytes the program has.
func (p *program) size() uint64 { return listRoom + uint64(len(p.data)) }

// Constants of the format. Source: elf(5).
const (
	elfHeader  = 64
	elfSegment = 56
	elfExec    = 2
	elfAMD64   = 62
	elfLoad    = 1
	elfStack   = 0x6474e551
	elfR, elfW = 4, 2
	elfX       = 1
)

// header is the first page of an executable whose program lies in it at offset.
func (p *program) header(offset uint64) []byte {
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 15: 0}
	two := func(v uint16) { b = binary.LittleEndian.AppendUint16(b, v) }
	four := func(v uint32) { b = binary.LittleEndian.AppendUint32(b, v) }
	eight := func(all ...uint64) {
		for _, v := range all {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	two(elfExec)
	two(elfAMD64)
	four(1)
	eight(p.base, elfHeader, 0)
	four(0)
	for _, v := range []uint16{elfHeader, elfSegment, 2, 0, 0, 0} {
		two(v)
	}
	four(elfLoad)
	four(elfR | elfX)
	eight(offset, p.base, p.base, p.size(), p.size(), pageSize)
	four(elfStack)
	four(elfR | elfW)
	eight(0, 0, 0, 0, 0, 16)
	return b
}
