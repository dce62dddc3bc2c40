package screen

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

const (
	tall      = 32         // most lines of a glyph; the adapter keeps as many for each. Source: IBM VGA technical reference, character generator
	fontBytes = 256 * tall // of one font as the adapter keeps it
	planes    = 4          // of the adapter's memory: the characters are in plane 0, their glyphs in plane 2
	fontPlane = 2          //
	biosAt    = 0xc0000    // where the firmware of a VGA adapter is. Source: PCI firmware specification 3.0, option ROMs
	biosBytes = 0x10000    // at most
	vgaClass  = 0x0300     // class and subclass of a VGA adapter. Source: PCI code and ID assignment specification
	perRead   = 8192       // words that are asked for at once; the answer is a line of about 130 KB
	perWord   = 4          // bytes
	maxBuses  = 8          // bridges below bridges
)

// glyph is the lines of a character, the leftmost dot in the highest bit. Lines that a
// font does not have are 0.
type glyph [tall]byte

// font has a glyph for each code.
type font [256]glyph

// fonts are those that a machine may draw with.
type fonts struct {
	firmware []sized // as the firmware has them, which says what they draw
	own      *font   // in the adapter's memory, as high as it is used; nil where it cannot be read
}

// sized is a font of so many lines.
type sized struct {
	lines int
	font  *font
}

// starts are how fonts begin: the empty glyph, and the face that code 1 draws, in
// the heights that a VGA adapter's firmware has.
var starts = []struct {
	lines int
	begin []byte
}{
	{16, append(make([]byte, 16), 0, 0, 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e, 0, 0, 0, 0)},
	{14, append(make([]byte, 14), 0, 0, 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x7e, 0, 0, 0)},
	{8, append(make([]byte, 8), 0x7e, 0x81, 0xa5, 0x81, 0xbd, 0x99, 0x81, 0x7e)},
}

// firmwareFonts finds the fonts in an adapter's firmware.
func firmwareFonts(rom []byte) []sized {
	var found []sized
	for _, s := range starts {
		at := bytes.Index(rom, s.begin)
		if at < 0 || at+256*s.lines > len(rom) {
			continue
		}
		f := new(font)
		for code := range f {
			copy(f[code][:], rom[at+code*s.lines:][:s.lines])
		}
		found = append(found, sized{s.lines, f})
	}
	return found
}

// ownFont takes the first font of an adapter's memory, in which the planes lie byte
// by byte beside each other.
func ownFont(memory []byte) *font {
	f := new(font)
	for code := range f {
		for line := range f[code] {
			f[code][line] = memory[(code*tall+line)*planes+fontPlane]
		}
	}
	return f
}

// readFonts asks the machine for its fonts. Where the firmware's are known they are
// not read again.
func (s *Screen) readFonts(ctx context.Context, known []sized) (fonts, error) {
	f := fonts{firmware: known}
	if len(known) == 0 {
		rom, err := s.memory(ctx, biosAt, biosBytes)
		if err != nil {
			return f, err
		}
		f.firmware = firmwareFonts(rom)
	}
	at, err := s.adapter(ctx)
	if err != nil || at == 0 {
		return f, err
	}
	memory, err := s.memory(ctx, at, fontBytes*planes)
	if err != nil {
		return f, err
	}
	f.own = ownFont(memory)
	return f, nil
}

// pciDevice is what QEMU says of one. Source: QEMU, qapi/pci.json, PciDeviceInfo.
type pciDevice struct {
	Class struct {
		Class int `json:"class"`
	} `json:"class_info"`
	Regions []struct {
		Bar     int    `json:"bar"`
		Type    string `json:"type"`
		Address int64  `json:"address"`
		Size    int64  `json:"size"`
	} `json:"regions"`
	Bridge *struct {
		Devices []pciDevice `json:"devices"`
	} `json:"pci_bridge"`
}

// adapter returns where the VGA adapter's memory is, 0 where it is nowhere now:
// before the firmware has placed it, or where there is no such adapter.
func (s *Screen) adapter(ctx context.Context) (uint64, error) {
	var buses []struct {
		Devices []pciDevice `json:"devices"`
	}
	if err := s.monitor.Execute(ctx, "query-pci", nil, &buses); err != nil {
		return 0, fault.Wrap(err, "look for the display adapter")
	}
	for _, bus := range buses {
		if at := adapterIn(bus.Devices, maxBuses); at != 0 {
			return at, nil
		}
	}
	return 0, nil
}

func adapterIn(devices []pciDevice, depth int) uint64 {
	if depth == 0 {
		return 0
	}
	for _, d := range devices {
		if d.Bridge != nil {
			if at := adapterIn(d.Bridge.Devices, depth-1); at != 0 {
				return at
			}
		}
		if d.Class.Class != vgaClass {
			continue
		}
		for _, r := range d.Regions {
			if r.Bar == 0 && r.Type == "memory" && r.Address > 0 && r.Size >= fontBytes*planes {
				return uint64(r.Address)
			}
		}
	}
	return 0
}

// memory reads the machine's memory. QEMU's commands that write it to a file open
// that by name, so it is read as words.
func (s *Screen) memory(ctx context.Context, at uint64, size int) ([]byte, error) {
	all := make([]byte, 0, size)
	for len(all) < size {
		words := min(perRead, (size-len(all))/perWord)
		line := fmt.Sprintf("xp /%dxw 0x%x", words, at+uint64(len(all)))
		var said string
		if err := s.monitor.Execute(ctx, "human-monitor-command", map[string]string{"command-line": line}, &said); err != nil {
			return nil, fault.Wrap(err, "read the machine's memory")
		}
		part, err := parseWords(said, words)
		if err != nil {
			return nil, err
		}
		all = append(all, part...)
	}
	return all, nil
}

// parseWords reads lines such as "00000000000c0000: 0xe93caa55 0x00000000".
// Source: QEMU, monitor/hmp-cmds-target.c, memory_dump.
func parseWords(said string, words int) ([]byte, error) {
	all := make([]byte, 0, words*perWord)
	for line := range strings.Lines(said) {
		_, values, ok := strings.Cut(line, ":")
		if !ok {
			break
		}
		for value := range strings.FieldsSeq(values) {
			n, err := strconv.ParseUint(value, 0, 32)
			if err != nil || len(all) == cap(all) {
				return nil, fault.Unablef("what QEMU says of the machine's memory cannot be read")
			}
			all = append(all, byte(n), byte(n>>8), byte(n>>16), byte(n>>24)) // x86 is little-endian
		}
	}
	if len(all) < cap(all) {
		return nil, fault.Unablef("QEMU says less of the machine's memory than was asked for")
	}
	return all, nil
}
