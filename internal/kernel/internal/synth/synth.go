// Package synth makes small kernels, modules and packages for tests: right in all
// that strata looks at, and nothing else.
package synth

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"path"
	"strings"
)

// Release is what the kernels here call themselves.
const Release = "6.1.0-9-test"

// section is a named piece of an ELF file.
type section struct {
	name string
	kind elf.SectionType
	data []byte
}

const (
	headSize    = 64
	programSize = 56
	sectionSize = 64
)

// file puts an ELF file together, with one segment for each of notes.
func file(kind elf.Type, machine elf.Machine, sections []section, notes []byte) []byte {
	names := []byte{0}
	sections = append(sections, section{name: ".shstrtab", kind: elf.SHT_STRTAB})
	offsets := make([]uint32, len(sections))
	for i, s := range sections {
		offsets[i] = uint32(len(names))
		names = append(append(names, s.name...), 0)
	}
	sections[len(sections)-1].data = names
	programs := 0
	if notes != nil {
		programs = 1
	}
	var body bytes.Buffer
	body.Write(make([]byte, headSize+programs*programSize))
	notesAt := body.Len()
	body.Write(notes)
	table := []elf.Section64{{}}
	for i, s := range sections {
		table = append(table, elf.Section64{Name: offsets[i], Type: uint32(s.kind), Off: uint64(body.Len()), Size: uint64(len(s.data)), Addralign: 1})
		body.Write(s.data)
	}
	at := body.Len()
	binary.Write(&body, binary.LittleEndian, table)
	out := body.Bytes()
	head := elf.Header64{
		Type: uint16(kind), Machine: uint16(machine), Version: 1, Phoff: headSize, Shoff: uint64(at), Ehsize: headSize,
		Phentsize: programSize, Phnum: uint16(programs), Shentsize: sectionSize, Shnum: uint16(len(table)), Shstrndx: uint16(len(table) - 1),
	}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA], head.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	var top bytes.Buffer
	binary.Write(&top, binary.LittleEndian, head)
	if notes != nil {
		binary.Write(&top, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: uint64(notesAt), Filesz: uint64(len(notes)), Memsz: uint64(len(notes)), Align: 4})
	}
	copy(out, top.Bytes())
	return out
}

// Note is one ELF note.
func Note(owner string, kind uint32, content []byte) []byte {
	var b bytes.Buffer
	padded := func(data []byte) {
		b.Write(data)
		b.Write(make([]byte, (4-len(data)%4)%4))
	}
	name := append([]byte(owner), 0)
	binary.Write(&b, binary.LittleEndian, []uint32{uint32(len(name)), uint32(len(content)), kind})
	padded(name)
	padded(content)
	return b.Bytes()
}

// PVH are notes with the one that makes a kernel enterable by PVH behind another.
func PVH() []byte {
	return append(Note("GNU", 3, []byte("12345")), Note("Xen", 18, make([]byte, 8))...)
}

// Vmlinux is a kernel whose text mentions words as drivers that are built in.
func Vmlinux(machine elf.Machine, release string, notes []byte, words ...string) []byte {
	text := "\x00Linux version %s (%s@%s)\x00"
	if release != "" {
		text += "Linux version " + release + " (gcc)\n\x00"
	}
	for _, word := range words {
		text += word + "\x00"
	}
	return file(elf.ET_EXEC, machine, []section{{".rodata", elf.SHT_PROGBITS, []byte(text + strings.Repeat("kernel ", 4000))}}, notes)
}

// BzImage puts a packed kernel behind a boot sector and setup code.
func BzImage(payload []byte, release string) []byte {
	const sects, setup = 2, (2 + 1) * 512
	b := make([]byte, setup+16)
	b[0x1f1] = sects
	binary.LittleEndian.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x020f)
	binary.LittleEndian.PutUint16(b[0x20e:], 0x300-0x200)
	b[0x211] = 1
	binary.LittleEndian.PutUint16(b[0x236:], 1)
	binary.LittleEndian.PutUint32(b[0x248:], 16)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	copy(b[0x300:], release+" (builder@host) #1 SMP\x00")
	return append(append(b, payload...), make([]byte, 64)...)
}

// Module is a module that says words, each key=value, about itself.
func Module(machine elf.Machine, words ...string) []byte {
	return file(elf.ET_REL, machine, []section{
		{".text", elf.SHT_PROGBITS, []byte("code")},
		{".modinfo", elf.SHT_PROGBITS, []byte(strings.Join(words, "\x00") + "\x00")},
	}, nil)
}

// Plain is a module of a name, for Release, that depends on others.
func Plain(machine elf.Machine, name string, depends ...string) []byte {
	return Module(machine, "name="+name, "depends="+strings.Join(depends, ","), "vermagic="+Release+" SMP preempt mod_unload ")
}

// Signed puts a signature of n bytes at the end of a module.
func Signed(module []byte, n int) []byte {
	info := make([]byte, 12)
	binary.BigEndian.PutUint32(info[8:], uint32(n))
	out := append(bytes.Clone(module), bytes.Repeat([]byte{0x5a}, n)...)
	return append(append(out, info...), "~Module signature appended~\n"...)
}

// File is one file of an archive.
type File struct {
	Path   string
	Data   []byte
	Link   string // "": a plain file
	Sparse bool   // the zeros at its end are a hole, as `tar -S` has it
}

// Tar packs files, with the folders above them.
func Tar(files ...File) []byte {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	for _, f := range files {
		t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path.Dir(f.Path) + "/", Mode: 0o755})
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: 0o644, Size: int64(len(f.Data))}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, f.Link, 0
		}
		data := f.Data
		if f.Sparse {
			data = bytes.TrimRight(f.Data, "\x00")
			h.Format, h.Size = tar.FormatGNU, int64(len(data))
		}
		t.WriteHeader(h)
		if f.Sparse {
			sparse(b.Bytes()[b.Len()-512:], len(data), len(f.Data))
		}
		if f.Link == "" {
			t.Write(data)
		}
	}
	t.Close()
	return b.Bytes()
}

// sparse has a header say that only the first bytes of a file follow, and that the rest is
// a hole. Source: tar.h of GNU tar, struct oldgnu_header.
func sparse(header []byte, first, size int) {
	octal := func(at, n int) { copy(header[at:], fmt.Sprintf("%011o\x00", n)) }
	header[156] = tar.TypeGNUSparse
	for i, n := range []int{0, first, size, 0} { // what there is, and the end
		octal(386+12*i, n)
	}
	octal(483, size)
	copy(header[148:], "        ")
	sum := 0
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
}

// Member is one member of an ar archive.
func Member(name string, data []byte) []byte {
	out := fmt.Appendf(nil, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(data))
	out = append(out, data...)
	return append(out, make([]byte, len(data)%2)...)
}

// Package is a Debian package whose data.tar, named so, is data.
func Package(name string, data []byte) []byte {
	out := append([]byte("!<arch>\n"), Member("debian-binary", []byte("2.0\n"))...)
	out = append(out, Member("control.tar.xz", []byte("odd"))...)
	return append(out, Member(name, data)...)
}
