package files_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/files"
	"github.com/strata-project/strata/internal/require"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestATreeComesBackAsItWas(t *testing.T) {
	require.Root(t)
	src, dst := filepath.Join(t.TempDir(), "tree"), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(src, "sub/empty"), 0o750))
	must(t, os.WriteFile(filepath.Join(src, "file"), bytes.Repeat([]byte("x"), 200_000), 0o640))
	must(t, os.WriteFile(filepath.Join(src, "suid"), nil, 0o755))
	must(t, os.Lchown(filepath.Join(src, "suid"), 1000, 50))
	must(t, os.Chmod(filepath.Join(src, "suid"), 0o755|os.ModeSetuid))
	must(t, os.Link(filepath.Join(src, "file"), filepath.Join(src, "sub/same")))
	must(t, os.Symlink("/etc/passwd", filepath.Join(src, "sub/link")))
	must(t, unix.Mkfifo(filepath.Join(src, "fifo"), 0o600))
	attr := unix.Setxattr(filepath.Join(src, "file"), "user.colour", []byte("blue"), 0)
	_ = unix.Setxattr(filepath.Join(src, "file"), "user.a=b", []byte("c"), 0) // no tar can have it
	// Version 2; the owner may read and write, user 1000 read, the group and the mask read, others nothing.
	list := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	granted := unix.Setxattr(filepath.Join(src, "file"), "system.posix_acl_access", list, 0)
	old := time.Unix(1_000_000_000, 123456789)
	must(t, os.Chtimes(filepath.Join(src, "sub"), old, old))
	must(t, os.Chtimes(filepath.Join(src, "file"), old, old))

	var stream bytes.Buffer
	must(t, files.Create(&stream, src))
	must(t, files.Extract(dst, &stream))

	var a, b syscall.Stat_t
	for _, name := range []string{"", "file", "suid", "sub", "sub/same", "sub/link", "sub/empty", "fifo"} {
		must(t, syscall.Lstat(filepath.Join(src, name), &a))
		must(t, syscall.Lstat(filepath.Join(dst, "tree", name), &b))
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Nlink != b.Nlink {
			t.Errorf("%q is %+v; want %+v", name, b, a)
		}
		if name == "file" || name == "sub" {
			if a.Mtim != b.Mtim {
				t.Errorf("%q has time %v; want %v", name, b.Mtim, a.Mtim)
			}
		}
	}
	if granted == nil {
		value := make([]byte, 64)
		if n, err := unix.Getxattr(filepath.Join(dst, "tree/file"), "system.posix_acl_access", value); err != nil || !bytes.Equal(value[:n], list) {
			t.Errorf("the access list is %x, %v", value[:max(n, 0)], err)
		}
	}
	if attr == nil {
		value := make([]byte, 16)
		if n, err := unix.Getxattr(filepath.Join(dst, "tree/file"), "user.colour", value); err != nil || string(value[:n]) != "blue" {
			t.Errorf("the attribute is %q, %v", value[:max(n, 0)], err)
		}
	}
}

// hostile are streams that try to leave the folder.
func hostile(entries ...*tar.Header) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		h.Mode = 0o644
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if w.WriteHeader(h) == nil && h.Size > 0 {
			w.Write([]byte("evil"))
		}
	}
	w.Close()
	return &b
}

func TestNoEntryLeavesTheFolder(t *testing.T) {
	for name, entries := range map[string][]*tar.Header{
		"dots in the name":          {{Name: "../evil", Typeflag: tar.TypeReg}},
		"dots further in":           {{Name: "a/../../evil", Typeflag: tar.TypeReg}},
		"a link to an outer folder": {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "l/evil", Typeflag: tar.TypeReg}},
		"a hard link to outside":    {{Name: "evil", Typeflag: tar.TypeLink, Linkname: "../outside"}, {Name: "evil", Typeflag: tar.TypeReg}},
		"an absolute link":          {{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "l/strata-evil", Typeflag: tar.TypeReg}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			must(t, os.WriteFile(filepath.Join(top, "outside"), []byte("good"), 0o644))
			must(t, os.Mkdir(filepath.Join(top, "in"), 0o755))
			err := files.Extract(filepath.Join(top, "in"), hostile(entries...))
			if err == nil {
				t.Error("no fault")
			}
			all, _ := os.ReadDir(top)
			text, _ := os.ReadFile(filepath.Join(top, "outside"))
			if len(all) != 2 || string(text) != "good" {
				t.Errorf("outside: %v, %q", all, text)
			}
			if _, err := os.Lstat("/tmp/strata-evil"); err == nil {
				t.Error("a link was followed to /tmp")
				os.Remove("/tmp/strata-evil")
			}
		})
	}
}

func TestAnAbsoluteNameIsBelowTheFolder(t *testing.T) {
	require.Root(t)
	dir := t.TempDir()
	must(t, files.Extract(dir, hostile(&tar.Header{Name: "/a/b", Typeflag: tar.TypeReg})))
	if text, err := os.ReadFile(filepath.Join(dir, "a/b")); err != nil || string(text) != "evil" {
		t.Errorf("a/b: %q, %v", text, err)
	}
}

func TestAFolderIsNoFile(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
	if err := files.Extract(dir, hostile(&tar.Header{Name: "a", Typeflag: tar.TypeReg})); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a file over a folder: %v", err)
	}
}

func TestAFileThatDoesNotComeWholeLeavesTheFormerOne(t *testing.T) {
	var whole bytes.Buffer
	w := tar.NewWriter(&whole)
	if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: 1 << 20, Mode: 0o640, Uid: os.Getuid(), Gid: os.Getgid()}); err != nil {
		t.Fatal(err)
	}
	w.Write(make([]byte, 1<<20))
	w.Close()
	dir := t.TempDir()
	at := filepath.Join(dir, "x")
	if err := os.WriteFile(at, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := files.Extract(dir, io.LimitReader(bytes.NewReader(whole.Bytes()), 1<<19)); err == nil {
		t.Error("half a file was taken")
	}
	if data, err := os.ReadFile(at); string(data) != "old" {
		t.Errorf("left of the former file is %q, %v", data, err)
	}
	if err := files.Extract(dir, &whole); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(at); err != nil || st.Size() != 1<<20 || st.Mode() != 0o640 {
		t.Errorf("%v, %v", st, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("there are %v", list)
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	if err := files.Create(&bytes.Buffer{}, "/no/such"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "such") {
		t.Errorf("Create: %v", err)
	}
	if err := files.Extract("/no/such", &bytes.Buffer{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Extract: %v", err)
	}
}

func TestWhatTheKernelTellsIsNotCopied(t *testing.T) {
	require.Root(t)
	top := t.TempDir()
	inner := filepath.Join(top, "sys")
	must(t, os.Mkdir(inner, 0o755))
	must(t, os.WriteFile(filepath.Join(top, "file"), []byte("x"), 0o644))
	must(t, unix.Mount("sysfs", inner, "sysfs", unix.MS_RDONLY, ""))
	t.Cleanup(func() { must(t, unix.Unmount(inner, unix.MNT_DETACH)) })
	var stream bytes.Buffer
	must(t, files.Create(&stream, top))
	var names []string
	for r := tar.NewReader(&stream); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		names = append(names, strings.TrimPrefix(h.Name, filepath.Base(top)))
	}
	slices.Sort(names)
	if want := []string{"/", "/file", "/sys/"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	for _, name := range []string{inner, inner + "/kernel", "/proc/version", "/proc/self"} {
		if err := files.Create(io.Discard, name); err == nil || !strings.Contains(err.Error(), "the kernel's own") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzExtract(f *testing.F) {
	f.Add(hostile(&tar.Header{Name: "a", Typeflag: tar.TypeReg}).Bytes())
	f.Add(hostile(&tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/"}, &tar.Header{Name: "l/x", Typeflag: tar.TypeReg}).Bytes())
	f.Fuzz(func(t *testing.T, stream []byte) {
		top := t.TempDir()
		must(t, os.Mkdir(filepath.Join(top, "in"), 0o755))
		files.Extract(filepath.Join(top, "in"), bytes.NewReader(stream))
		if all, _ := os.ReadDir(top); len(all) != 1 {
			t.Errorf("left the folder: %v", all)
		}
	})
}
