package main

import (
	"bytes"
	"encoding/binary"
)

// The baseline of guests starts by a program that is nothing but a list of system
// calls, made here: the smallest /init there can be, so that no language's start
// and no shell is in the figure. It is an ELF file of one segment, for x86-64.

const (
	programBase = 0x400000
	programHead = 64 + 56 // ELF header, one program header
)

// Numbers of system calls. Source: Linux, arch/x86/entry/syscalls/syscall_64.tbl.
const (
	callWrite      = 1
	callOpen       = 2
	callDup2       = 33
	callVfork      = 58
	callExecve     = 59
	callExit       = 60
	callWait4      = 61
	callChdir      = 80
	callMkdir      = 83
	callChroot     = 161
	callMount      = 165
	callReboot     = 169
	callFinit      = 313
	powerOff       = 0x4321fedc // linux/reboot.h, as are the next two
	rebootMagic1   = 0xfee1dead
	rebootMagic2   = 672274793
	openReadWrite  = 2
	mountReadOnly  = 1
	processorX8664 = 62 // elf.h, EM_X86_64
)

// program is such a list in the making.
type program struct {
	code, data bytes.Buffer
	inCode     []int // where code holds an offset of data
	inData     []int // where data does
}

// offset is a place in a program's data.
type offset int

// result stands for what the system call before returned. Only as the first argument.
type result struct{}

// registers are `mov reg, imm64` in the order of a call's arguments.
var registers = [][]byte{{0x48, 0xbf}, {0x48, 0xbe}, {0x48, 0xba}, {0x49, 0xba}, {0x49, 0xb8}, {0x49, 0xb9}}

// call adds a system call; an argument is an int, a string, an offset or result.
// What it returns is not looked at: what goes wrong shows in the end.
func (p *program) call(number uint32, args ...any) {
	for i, arg := range args {
		if arg == (result{}) {
			p.code.Write([]byte{0x48, 0x89, 0xc7}) // mov rdi, rax
			continue
		}
		p.code.Write(registers[i])
		if s, ok := arg.(string); ok {
			arg = p.text(s)
		}
		var value uint64
		switch arg := arg.(type) {
		case offset:
			p.inCode = append(p.inCode, p.code.Len())
			value = uint64(arg)
		case int:
			value = uint64(arg)
		}
		binary.Write(&p.code, binary.LittleEndian, value)
	}
	p.code.WriteByte(0xb8) // mov eax, number
	binary.Write(&p.code, binary.LittleEndian, number)
	p.code.Write([]byte{0x0f, 0x05}) // syscall
}

// whereZero adds what runs only where the call before returned 0: a child.
func (p *program) whereZero(then func()) {
	p.code.Write([]byte{0x85, 0xc0, 0x0f, 0x85}) // test eax, eax; jnz
	at := p.code.Len()
	p.code.Write(make([]byte, 4))
	then()
	binary.LittleEndian.PutUint32(p.code.Bytes()[at:], uint32(p.code.Len()-at-4))
}

func (p *program) text(s string) offset {
	at := offset(p.data.Len())
	p.data.WriteString(s + "\x00")
	return at
}

// list adds pointers to words, and the zero that ends them.
func (p *program) list(words ...string) offset {
	var texts []offset
	for _, w := range words {
		texts = append(texts, p.text(w))
	}
	begin := offset(p.data.Len())
	for _, t := range texts {
		p.inData = append(p.inData, p.data.Len())
		binary.Write(&p.data, binary.LittleEndian, uint64(t))
	}
	binary.Write(&p.data, binary.LittleEndian, uint64(0))
	return begin
}

// file returns the program.
func (p *program) file() []byte {
	code, data := p.code.Bytes(), p.data.Bytes()
	base := uint64(programBase + programHead + len(code))
	for _, at := range p.inCode {
		binary.LittleEndian.PutUint64(code[at:], binary.LittleEndian.Uint64(code[at:])+base)
	}
	for _, at := range p.inData {
		binary.LittleEndian.PutUint64(data[at:], binary.LittleEndian.Uint64(data[at:])+base)
	}
	size := uint64(programHead + len(code) + len(data))
	var f bytes.Buffer
	f.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, part := range []any{
		[]uint16{2, processorX8664}, uint32(1), // executable, version
		[]uint64{programBase + programHead, 64, 0}, uint32(0), // entry, program headers, no sections, flags
		[]uint16{64, 56, 1, 0, 0, 0},                                            // sizes and counts
		[]uint32{1, 7}, []uint64{0, programBase, programBase, size, size, 4096}, // load all of it; read, write, execute
		code, data,
	} {
		binary.Write(&f, binary.LittleEndian, part)
	}
	return f.Bytes()
}
