package volume

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// What no machine's kernel asks for never reaches go-fuse: a nil file system would panic.
func TestWhatWasNotOfferedIsRefused(t *testing.T) {
	g := guard{}
	for _, n := range []string{"", ".", "..", "x/..", "../outside", "/etc", "a\x00b"} {
		for what, got := range map[string]fuse.Status{
			"lookup": g.Lookup(nil, nil, n, nil), "mknod": g.Mknod(nil, nil, n, nil), "mkdir": g.Mkdir(nil, nil, n, nil), "unlink": g.Unlink(nil, nil, n),
			"rmdir": g.Rmdir(nil, nil, n), "rename": g.Rename(nil, nil, n, "good"), "rename to": g.Rename(nil, nil, "good", n), "link": g.Link(nil, nil, n, nil),
			"symlink": g.Symlink(nil, nil, "target", n, nil), "create": g.Create(nil, nil, n, nil),
		} {
			if got != fuse.EINVAL {
				t.Errorf("%s %q: %v", what, n, got)
			}
		}
	}
	for what, got := range map[string]fuse.Status{"getlk": g.GetLk(nil, nil, nil), "setlk": g.SetLk(nil, nil), "setlkw": g.SetLkw(nil, nil)} {
		if got != fuse.ENOSYS {
			t.Errorf("%s: %v", what, got)
		}
	}
	if got := g.Ioctl(nil, nil, nil, nil, nil); got != fuse.Status(unix.ENOTTY) {
		t.Errorf("ioctl: %v", got)
	}
}

// A machine that starts anew, or mounts the volume again, leaves no file open.
func TestABeginningClosesWhatWasOpen(t *testing.T) {
	v, err := newVolume()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "file")
	fd, err := unix.Open(name, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	v.files.note(fs.NewLoopbackFile(fd), true)
	before := v.server.Load()
	request := make([]byte, 104) // a header and struct fuse_init_in
	binary.LittleEndian.PutUint32(request, uint32(len(request)))
	binary.LittleEndian.PutUint32(request[4:], initOpcode)
	binary.LittleEndian.PutUint32(request[40:], 7)
	binary.LittleEndian.PutUint32(request[44:], 36)
	answer := make([]byte, 4096)
	if n := v.answer([][]byte{request}, [][]byte{answer}); n < 16 || binary.LittleEndian.Uint32(answer[4:]) != 0 {
		t.Errorf("the answer has %d bytes, error %d", n, int32(binary.LittleEndian.Uint32(answer[4:])))
	}
	if v.server.Load() == before {
		t.Error("what the machine was told of is still known")
	}
	if got, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && got == name {
		t.Error("the file is still open")
	}
}
