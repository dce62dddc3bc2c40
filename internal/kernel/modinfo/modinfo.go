// Package modinfo reads what a kernel module says about itself, as modinfo(8)
// does: the section .modinfo of its ELF file. Modules are hostile: what is read
// of one is bounded, and a name is one that is safe in a path.
package modinfo

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// MaxInfo bounds the section .modinfo. Unit: bytes. Graphics drivers with their
// thousands of aliases have about 100 KiB.
const MaxInfo = 4 * unit.MiB

// maxDepends bounds the dependencies of one module.
const maxDepends = 256

// Info is what a module says.
type Info struct {
	Name    string   // with "_" for "-", as the kernel has it
	Depends []string // modules that are loaded before it
	Before  []string // what it would like to be loaded before it, where it is there: modules or aliases
	Aliases []string // words for it, such as "crc32c"; those with a wildcard are left out
	Release string   // of the kernel that it was built for; "": it does not say
	Machine elf.Machine
}

// namePattern is what may be a module's name. Source: Linux, MODULE_NAME_LEN is 64
// less the size of a long, and names are those of C.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_]{1,56}$`)

// Name makes a module's name of a file's: "virtio-rng.ko.xz" is virtio_rng. It is
// "" where the file is no module.
func Name(file string) string {
	stem, _, ok := strings.Cut(path.Base(file), ".ko")
	if !ok {
		return ""
	}
	return Canonical(stem)
}

// Canonical is a module's name as the kernel has it, "" where name can be none.
func Canonical(name string) string {
	name = strings.ReplaceAll(name, "-", "_")
	if !namePattern.MatchString(name) {
		return ""
	}
	return name
}

// Read reads a module that is not compressed. Kinds: Invalid.
func Read(module io.ReaderAt) (Info, error) {
	f, err := elf.NewFile(module)
	if err != nil {
		return Info{}, fault.Invalidf("this is no module: %w", err)
	}
	s := f.Section(".modinfo")
	if f.Type != elf.ET_REL || s == nil || s.Type != elf.SHT_PROGBITS {
		return Info{}, fault.Invalidf("this is no module: it has no section .modinfo")
	}
	if s.Size > MaxInfo || s.Flags&elf.SHF_COMPRESSED != 0 {
		return Info{}, fault.Invalidf("the module says %s about itself; at most %s are read", unit.Size(min(s.Size, 1<<60)), unit.Size(MaxInfo))
	}
	data, err := s.Data()
	if err != nil {
		return Info{}, fault.Invalidf("the module is truncated: %w", err)
	}
	info, err := parse(data)
	info.Machine = f.Machine
	return info, err
}

// parse reads NUL-ended words of the form key=value.
func parse(data []byte) (Info, error) {
	var info Info
	for word := range bytes.SplitSeq(data, []byte{0}) {
		key, value, ok := strings.Cut(string(word), "=")
		if !ok {
			continue
		}
		switch key {
		case "name":
			info.Name = Canonical(value)
		case "depends":
			for one := range strings.SplitSeq(value, ",") {
				if one == "" {
					continue
				}
				name := Canonical(one)
				if name == "" || len(info.Depends) >= maxDepends {
					return info, fault.Invalidf("the module depends on %q, which can be no module", printable(one))
				}
				info.Depends = append(info.Depends, name)
			}
		case "softdep":
			info.Before = append(info.Before, before(value)...)
		case "alias":
			if name := Canonical(value); name != "" && len(info.Aliases) < maxDepends {
				info.Aliases = append(info.Aliases, name)
			}
		case "vermagic":
			info.Release, _, _ = strings.Cut(value, " ")
		}
	}
	if len(info.Before) > maxDepends {
		info.Before = info.Before[:maxDepends]
	}
	return info, nil
}

// before returns the words after "pre:". Source: modprobe.d(5), softdep.
func before(value string) []string {
	var all []string
	pre := false
	for _, word := range strings.Fields(value) {
		switch name := Canonical(word); {
		case strings.HasSuffix(word, ":"):
			pre = word == "pre:"
		case pre && name != "":
			all = append(all, name)
		}
	}
	return all
}

// The end of a signed module. Source: Linux, include/linux/module_signature.h.
const (
	signatureMagic = "~Module signature appended~\n"
	signatureInfo  = 12 // bytes of struct module_signature, whose last four are the signature's length
)

// Unsigned returns a module without the signature that may be at its end: a
// kernel that does not insist on signatures is spared checking it.
func Unsigned(module []byte) []byte {
	rest, ok := bytes.CutSuffix(module, []byte(signatureMagic))
	if !ok || len(rest) < signatureInfo {
		return module
	}
	body, info := rest[:len(rest)-signatureInfo], rest[len(rest)-signatureInfo:]
	// algorithm, hash, id type, length of the signer's name, of the key's id, three of padding
	size := int64(info[3]) + int64(info[4]) + int64(binary.BigEndian.Uint32(info[8:]))
	if size > int64(len(body)) {
		return module
	}
	return body[:int64(len(body))-size]
}

func printable(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strings.Trim(fmt.Sprintf("%q", s), `"`)
}
