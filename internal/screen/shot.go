package screen

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Shot returns what the screen shows. Kinds: Unable where QEMU does not do it or
// the picture is none, Busy where ctx ends first.
func (s *Screen) Shot(ctx context.Context) (*image.RGBA, error) {
	// QEMU empties the file before it writes, so it cannot be sealed. Its pages are
	// charged to who writes them, and so count against the environment's own limit.
	fd, err := unix.MemfdCreate("screen", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fault.Wrap(err, "make a file for the screen")
	}
	file := os.NewFile(uintptr(fd), "screen")
	defer file.Close()
	if err := s.dump(ctx, file); err != nil {
		return nil, err
	}
	p, err := decodePPM(io.NewSectionReader(file, 0, maxFile))
	if err != nil {
		return nil, fault.Wrap(err, "read the screen")
	}
	return p, nil
}

// PNG returns what the screen shows as a PNG file. Kinds: as Shot's.
func (s *Screen) PNG(ctx context.Context) ([]byte, error) {
	p, err := s.Shot(ctx)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	quick := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := quick.Encode(&out, p); err != nil {
		return nil, fault.Wrap(err, "encode the screen")
	}
	return out.Bytes(), nil
}

// cleanup bounds what is done after ctx has ended.
const cleanup = 2 * time.Second

// dump has QEMU write the screen into file.
func (s *Screen) dump(ctx context.Context, file *os.File) error {
	// QEMU wants a descriptor that only writes, as it would have opened it itself.
	only, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), os.O_WRONLY, 0)
	if err != nil {
		return fault.Wrap(err, "open a file for the screen")
	}
	defer only.Close()
	set := map[string]uint32{"fdset-id": number()}
	if err := s.monitor.Execute(ctx, "add-fd", set, nil, only); err != nil {
		return fault.Wrap(err, "hand over a file for the screen")
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
		defer cancel()
		_ = s.monitor.Execute(ctx, "remove-fd", set, nil) // one that stays is closed with the machine
	}()
	name := fmt.Sprintf("/dev/fdset/%d", set["fdset-id"])
	if err := s.monitor.Execute(ctx, "screendump", map[string]string{"filename": name}, nil); err != nil {
		return fault.Wrap(err, "look at the screen")
	}
	return nil
}

// number is one that no other set of descriptors has; those of a command line
// count from 0.
func number() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.NativeEndian.Uint32(b[:])>>2 | 1<<29
}
