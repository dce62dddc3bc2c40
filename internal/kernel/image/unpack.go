package image

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Unpack writes the uncompressed kernel that is in the first size bytes of r to
// the empty file w, and checks it. Kinds: Invalid where it is no kernel, or
// truncated, or too big; Unable where it is for another architecture or cannot be
// entered by PVH.
func Unpack(ctx context.Context, r io.ReaderAt, size int64, w *os.File) (Info, error) {
	if size > MaxPacked {
		return Info{}, fault.Invalidf("the file has %s, more than any kernel (%s)", unit.Size(size), unit.Size(MaxPacked))
	}
	head := make([]byte, headerEnd)
	n, err := r.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return Info{}, err
	}
	head = head[:n]
	format, packed := ELF, io.Reader(io.NewSectionReader(r, 0, size))
	var said string
	switch {
	case isELF(head):
	case isBzImage(head):
		format = BzImage
		var h setup
		if h, err = readSetup(head, size); err != nil {
			return Info{}, err
		}
		said = releaseAt(r, h.version)
		if packed, err = payload(r, h); err != nil {
			return Info{}, err
		}
	case isArm64(head):
		return Info{}, fault.Unablef("the kernel is for arm64, and this host is %s", runtime.GOARCH)
	case n == 0:
		return Info{}, fault.Invalidf("the file is empty, and no kernel")
	default:
		return Info{}, fault.Invalidf("the file is no kernel").Help("a bzImage (as /boot/vmlinuz-… is on x86) or an ELF vmlinux is accepted")
	}
	if err := spill(ctx, w, packed); err != nil {
		return Info{}, err
	}
	info, err := Check(w)
	if err != nil {
		return Info{}, err
	}
	info.Format = format
	if said != "" {
		info.Release = said
	}
	return info, nil
}

// spill copies at most MaxKernel.
func spill(ctx context.Context, w io.Writer, r io.Reader) error {
	buffer := make([]byte, unit.MiB)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buffer)
		if total += int64(n); total > MaxKernel {
			return fault.Invalidf("the kernel unpacks to more than %s", unit.Size(MaxKernel))
		}
		if _, werr := w.Write(buffer[:n]); werr != nil {
			return werr
		}
		if err == io.EOF {
			return nil
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fault.Invalidf("the kernel is truncated")
		}
		if err != nil {
			return err
		}
	}
}

// The header of a bzImage. Source: Linux, Documentation/arch/x86/boot.rst, "The
// Real-Mode Kernel Header".
const (
	offSetupSects    = 0x1f1
	offBootFlag      = 0x1fe
	offMagic         = 0x202
	offVersion       = 0x206
	offKernelVersion = 0x20e
	offLoadFlags     = 0x211
	offXLoadFlags    = 0x236
	offPayload       = 0x248
	offPayloadLength = 0x24c
	headerEnd        = 0x250

	bootFlag       = 0xaa55
	setupMagic     = "HdrS"
	leastVersion   = 0x0208 // the first with a payload's offset
	xloadVersion   = 0x020c // the first with xloadflags
	loadedHigh     = 1 << 0
	kernel64       = 1 << 0
	sector         = 512
	defaultSects   = 4
	versionBase    = 0x200 // what the version's offset counts from
	maxVersionText = 256
)

// setup is what the header says, checked against the file's size.
type setup struct {
	payload, length int64
	version         int64 // where the version's text is; 0: nowhere
}

func isBzImage(head []byte) bool {
	return len(head) >= headerEnd && binary.LittleEndian.Uint16(head[offBootFlag:]) == bootFlag && string(head[offMagic:offMagic+4]) == setupMagic
}

// isArm64 tells an arm64 Image. Source: Linux, Documentation/arch/arm64/booting.rst.
func isArm64(head []byte) bool { return len(head) >= 64 && string(head[56:60]) == "ARM\x64" }

func readSetup(head []byte, size int64) (setup, error) {
	version := binary.LittleEndian.Uint16(head[offVersion:])
	if version < leastVersion || head[offLoadFlags]&loadedHigh == 0 {
		return setup{}, fault.Unablef("the kernel has boot protocol %d.%02d, of before 2008", version>>8, version&0xff).Help("use Linux 2.6.26 or newer")
	}
	if version >= xloadVersion && binary.LittleEndian.Uint16(head[offXLoadFlags:])&kernel64 == 0 {
		return setup{}, fault.Unablef("the kernel is for 32-bit processors").Help("use one for amd64")
	}
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = defaultSects
	}
	h := setup{
		payload: (sects+1)*sector + int64(binary.LittleEndian.Uint32(head[offPayload:])),
		length:  int64(binary.LittleEndian.Uint32(head[offPayloadLength:])),
	}
	if at := int64(binary.LittleEndian.Uint16(head[offKernelVersion:])); at != 0 && at < sects*sector {
		h.version = at + versionBase
	}
	if h.length == 0 {
		return setup{}, fault.Invalidf("the kernel's header names no payload")
	}
	if h.payload+h.length > size {
		return setup{}, fault.Invalidf("the kernel is truncated: its header names %d bytes, and the file has %d", h.payload+h.length, size)
	}
	return h, nil
}

// releaseAt reads the first word at an offset, "" where it is none.
func releaseAt(r io.ReaderAt, at int64) string {
	if at == 0 {
		return ""
	}
	text := make([]byte, maxVersionText)
	n, _ := r.ReadAt(text, at) // a short read leaves a short text
	return firstWord(text[:n])
}

// firstWord is a release that is safe as a file's name, or "".
func firstWord(text []byte) string {
	for i, c := range text {
		switch {
		case c == 0 || c == ' ' || c == '\n':
			return string(text[:i])
		case c == '.' && i == 0, i > 64:
			return ""
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '+', c == '_', c == '~':
		default:
			return ""
		}
	}
	return ""
}
