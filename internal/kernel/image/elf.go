package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"runtime"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// The note that makes a kernel enterable by PVH.
// Source: Xen, public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY; QEMU, hw/i386/x86.c.
const (
	noteOwner = "Xen"
	notePVH   = 18
	maxNotes  = unit.MiB
)

func isELF(head []byte) bool { return bytes.HasPrefix(head, []byte(elf.ELFMAG)) }

// machines are the ELF machines of architectures by Go's word.
var machines = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64", elf.EM_S390: "s390x"}

// Machine returns the ELF machine of this host's kernels and modules.
func Machine() elf.Machine {
	for m, arch := range machines {
		if arch == runtime.GOARCH {
			return m
		}
	}
	return elf.EM_NONE
}

// ArchOf returns Go's word for an ELF machine.
func ArchOf(m elf.Machine) string {
	if arch, ok := machines[m]; ok {
		return arch
	}
	return m.String()
}

// Check reads an uncompressed kernel. Kinds: as Unpack's.
func Check(f *os.File) (Info, error) {
	stat, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return Info{}, fault.Invalidf("what is in the kernel's file is no kernel: %w", err)
	}
	arch := ArchOf(e.Machine)
	if e.Machine != Machine() {
		return Info{}, fault.Unablef("the kernel is for %s, and this host is %s", arch, runtime.GOARCH).Help("use a kernel for %s", runtime.GOARCH)
	}
	if e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return Info{}, fault.Invalidf("the file is an ELF file, but no kernel (%s)", e.Type)
	}
	for _, p := range e.Progs {
		if p.Filesz > uint64(stat.Size()) || p.Off > uint64(stat.Size())-p.Filesz {
			return Info{}, fault.Invalidf("the kernel is truncated: a segment ends after the file's %d bytes", stat.Size())
		}
	}
	release, err := releaseIn(io.NewSectionReader(f, 0, stat.Size()))
	if err != nil {
		return Info{}, err
	}
	if release == "" {
		return Info{}, fault.Invalidf("the file is an ELF program, but no Linux kernel")
	}
	if e.Machine == elf.EM_X86_64 && !hasPVH(e) {
		return Info{}, fault.Unablef("kernel %s cannot be booted directly: it was built without CONFIG_PVH", release).
			Help("use one that has it, as Debian's have: strata kernel add debian")
	}
	return Info{Release: release, Arch: arch, Format: ELF}, nil
}

func hasPVH(e *elf.File) bool {
	for _, p := range e.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > maxNotes {
			continue
		}
		data := make([]byte, p.Filesz)
		if _, err := p.ReadAt(data, 0); err != nil {
			continue
		}
		if pvhIn(data, e.ByteOrder) {
			return true
		}
	}
	return false
}

// pvhIn looks through notes: size of the owner, of the content, type, and both
// padded to four bytes. Source: elf(5), "Notes (Nhdr)".
func pvhIn(data []byte, order binary.ByteOrder) bool {
	padded := func(n uint32) uint64 { return (uint64(n) + 3) &^ 3 }
	for len(data) >= 12 {
		owner, content, kind := order.Uint32(data), order.Uint32(data[4:]), order.Uint32(data[8:])
		data = data[12:]
		if padded(owner)+padded(content) > uint64(len(data)) {
			return false
		}
		if kind == notePVH && string(bytes.TrimRight(data[:owner], "\x00")) == noteOwner {
			return true
		}
		data = data[padded(owner)+padded(content):]
	}
	return false
}

// banner is how every kernel's text about itself begins. Source: Linux, init/version-timestamp.c.
const banner = "Linux version "

// releaseIn looks for the banner; "" where there is none.
func releaseIn(r io.Reader) (string, error) {
	at := ""
	err := scan(r, len(banner)+maxVersionText, func(window []byte) bool {
		for {
			i := bytes.Index(window, []byte(banner))
			if i < 0 {
				return false
			}
			window = window[i+len(banner):]
			// "Linux version %s" is elsewhere in the file, too.
			if at = firstWord(window); at != "" && at[0] >= '0' && at[0] <= '9' {
				return true
			}
			at = ""
		}
	})
	return at, err
}

// scan calls look with overlapping windows of r until it returns true.
func scan(r io.Reader, overlap int, look func(window []byte) bool) error {
	buffer := make([]byte, unit.MiB)
	kept := 0
	for {
		n, err := io.ReadFull(r, buffer[kept:])
		window := buffer[:kept+n]
		if look(window) {
			return nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
		kept = copy(buffer, window[len(window)-overlap:])
	}
}

// Mentions returns which of the words stand in a kernel as texts of their own, as
// the names of drivers that are built in do. It is a guess, for kernels that come
// without a list of what is built in.
func Mentions(r io.Reader, words []string) (map[string]bool, error) {
	found := map[string]bool{}
	longest := 0
	for _, word := range words {
		longest = max(longest, len(word)+2)
	}
	err := scan(r, longest, func(window []byte) bool {
		for _, word := range words {
			if !found[word] && bytes.Contains(window, []byte("\x00"+word+"\x00")) {
				found[word] = true
			}
		}
		return len(found) == len(words)
	})
	return found, err
}
