// Package screentest boots stock hardware that shows something, for tests.
package screentest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/screen"
)

// Patience bounds everything that a test waits for.
var Patience = require.Patience(40 * time.Second)

// Boot sectors, which the firmware loads to 0x7c00 and runs. Source of the calls:
// Ralf Brown's interrupt list, INT 10h (video) and INT 16h (keyboard).
var (
	// Echo writes each key that is pressed.
	Echo = []byte{
		0xb8, 0x03, 0x00, 0xcd, 0x10, // mode 3: text
		0x30, 0xe4, 0xcd, 0x16, // next: wait for a key
		0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, // write it
		0x3c, 0x0d, 0x75, 0xf1, // enter?
		0xb0, 0x0a, 0xcd, 0x10, 0xeb, 0xeb, // a line feed too
	}
	// Table fills the screen's memory with all characters, in the 8 lines' font
	// where Small is put before it.
	Table = []byte{
		0xb8, 0x00, 0xb8, 0x8e, 0xc0, 0x31, 0xff, // to b800:0
		0xb9, 0x00, 0x01, 0x31, 0xc0, 0xb4, 0x1e, // 256 of them, yellow on blue
		0xab, 0xfe, 0xc0, 0xe2, 0xfb, 0xf4, 0xeb, 0xfd,
	}
	// Text80 and Text40 set a mode, and Small a font.
	Text80 = []byte{0xb8, 0x03, 0x00, 0xcd, 0x10}
	Text40 = []byte{0xb8, 0x01, 0x00, 0xcd, 0x10}
	Small  = []byte{0xb8, 0x12, 0x11, 0x30, 0xdb, 0xcd, 0x10}
	// Odd gives the letter A another glyph, 16 lines at 0x7d00.
	Odd = []byte{
		0x31, 0xc0, 0x8e, 0xc0, 0xbd, 0x00, 0x7d, // es:bp
		0xb9, 0x01, 0x00, 0xba, 0x41, 0x00, 0xbb, 0x00, 0x10, // one of them, A, 16 lines
		0xb8, 0x00, 0x11, 0xcd, 0x10,
	}
	OddGlyph = []byte{0xaa, 0x55, 0xc3, 0x3c, 0x18, 0x99, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf1, 0x23, 0x45}
	// Dots draws 200 lines of points in mode 13h.
	Dots = []byte{
		0xb8, 0x13, 0x00, 0xcd, 0x10, 0xb8, 0x00, 0xa0, 0x8e, 0xc0, 0x31, 0xff, 0xb9, 0x00, 0xfa, // to a000:0
		0x89, 0xf8, 0x00, 0xe0, 0xaa, 0xe2, 0xf9, 0xf4, 0xeb, 0xfd, // each its own colour
	}
)

// Sector makes a bootable disk of code, with data at 0x7d00.
func Sector(data []byte, code ...[]byte) []byte {
	s := make([]byte, 1<<20) // the firmware wants a whole cylinder
	copy(s, bytes.Join(code, nil))
	copy(s[0x100:], data)
	s[510], s[511] = 0x55, 0xaa
	return s
}

// Boot runs stock hardware that boots disk, or finds nothing where that is nil. The
// context ends with Patience. QEMU is given more arguments.
func Boot(t *testing.T, disk []byte, more ...string) (*screen.Screen, context.Context) {
	t.Helper()
	program := require.Tool(t, "qemu-system-x86_64")
	require.Machines(t)
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	args := append([]string{"-machine", "q35", "-accel", "tcg", "-m", "64", "-nodefaults", "-vga", "std", "-sandbox", sandbox}, screen.Display()...)
	if disk != nil {
		image := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(image, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-drive", "format=raw,file="+image)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append(append(args, more...), "-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control")...)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	q, err := qemu.Open(ctx, conn.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return screen.New(q), ctx
}

// sandbox is QEMU's own, as confined machines have it.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
