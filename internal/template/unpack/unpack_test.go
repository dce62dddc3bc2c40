package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

// made is one entry of a tar that a test makes.
type made struct {
	tar.Header
	data string
}

var then = time.Unix(1_000_000_000, 500_000_000)

func dir(name string) made {
	return made{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o750}, ""}
}
func file(name, data string) made {
	return made{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}
func symlink(name, to string) made {
	return made{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, ""}
}
func hardlink(name, to string) made {
	return made{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}, ""}
}

func tarOf(t testing.TB, entries ...made) []byte {
	t.Helper()
	out := new(bytes.Buffer)
	w := tar.NewWriter(out)
	for _, e := range entries {
		e.Size = int64(len(e.data))
		e.Format = tar.FormatPAX
		if e.ModTime.IsZero() {
			e.ModTime = then
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// yard is a folder with the root to unpack into and things beside it that
// nothing may touch.
type yard struct{ base, root, outside string }

const secret = "nobody may change this"

func newYard(t testing.TB) yard {
	t.Helper()
	require.Root(t)
	base := t.TempDir()
	y := yard{base, filepath.Join(base, "root"), filepath.Join(base, "outside")}
	for _, d := range []string{y.root, y.outside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(y.outside, "secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return y
}

// untouched fails where anything beside the root changed.
func (y yard) untouched(t testing.TB) {
	t.Helper()
	var seen []string
	err := filepath.WalkDir(y.base, func(path string, d os.DirEntry, err error) error {
		if path == y.root {
			return filepath.SkipDir
		}
		seen = append(seen, strings.TrimPrefix(path, y.base))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"", "/outside", "/outside/secret"}; !slices.Equal(seen, want) {
		t.Fatalf("beside the root there is %q, want %q", seen, want)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(filepath.Join(y.outside, "secret"), &st); err != nil || st.Mode != syscall.S_IFREG|0o600 || st.Uid != 0 || st.Nlink != 1 {
		t.Fatalf("the secret is %+v, %v", st, err)
	}
	data, err := os.ReadFile(filepath.Join(y.outside, "secret"))
	if err != nil || string(data) != secret {
		t.Fatalf("the secret reads %q, %v", data, err)
	}
}

// listing describes what is below the root, a line for each entry.
func (y yard) listing(t testing.TB) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(y.root, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == y.root {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			return err
		}
		line := strings.TrimPrefix(path, y.root+"/")
		buf := make([]byte, 8)
		n, _ := unix.Lgetxattr(path, opaqueAttribute, buf)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFDIR:
			line += "/"
			if n > 0 && string(buf[:n]) == "y" {
				line += " opaque"
			}
		case syscall.S_IFLNK:
			to, _ := os.Readlink(path)
			line += " -> " + to
		case syscall.S_IFCHR:
			line += fmt.Sprintf(" c%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case syscall.S_IFBLK:
			line += fmt.Sprintf(" b%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		case syscall.S_IFIFO:
			line += " fifo"
		case syscall.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += " = " + string(data)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestLayer(t *testing.T) {
	for name, c := range map[string]struct {
		in   []made
		want string
	}{
		"files and folders":                              {[]made{dir("a/"), file("a/b", "x")}, "a/\na/b = x"},
		"an absolute name starts at the root":            {[]made{file("/etc/x", "x")}, "etc/\netc/x = x"},
		"names may start with ./":                        {[]made{dir("./"), file("./x", "x")}, "x = x"},
		"a missing folder is made":                       {[]made{file("a/b/c", "x")}, "a/\na/b/\na/b/c = x"},
		"a link's target is kept as it is":               {[]made{symlink("l", "/etc/../../x")}, "l -> /etc/../../x"},
		"a name through a link stays beneath":            {[]made{dir("usr/bin"), symlink("bin", "usr/bin"), file("bin/x", "x")}, "bin -> usr/bin\nusr/\nusr/bin/\nusr/bin/x = x"},
		"a name through an absolute link stays beneath":  {[]made{symlink("bin", "/usr/bin"), file("bin/x", "x")}, "bin -> /usr/bin\nusr/\nusr/bin/\nusr/bin/x = x"},
		"a name through a link upwards stays beneath":    {[]made{symlink("up", "../../../.."), file("up/x", "x")}, "up -> ../../../..\nx = x"},
		"a link in the middle of a longer path":          {[]made{dir("a/b"), symlink("l", "a"), symlink("a/b/m", "../../c"), file("l/b/m/x", "x")}, "a/\na/b/\na/b/m -> ../../c\nc/\nc/x = x\nl -> a"},
		"a later file takes a link's place":              {[]made{file("to", "keep"), symlink("l", "to"), file("l", "new")}, "l = new\nto = keep"},
		"a later file takes a folder's place":            {[]made{file("d/a/b", "x"), file("d", "new")}, "d = new"},
		"a later folder takes a file's place":            {[]made{file("d", "x"), dir("d"), file("d/a", "y")}, "d/\nd/a = y"},
		"a later folder takes a link's place":            {[]made{dir("to"), symlink("l", "to"), dir("l"), file("l/x", "x")}, "l/\nl/x = x\nto/"},
		"a folder twice is one":                          {[]made{dir("d"), file("d/x", "x"), dir("d")}, "d/\nd/x = x"},
		"a link that leads to itself by another":         {[]made{symlink("l/l", "."), file("l/l/l/x", "x")}, "l/\nl/l -> .\nl/x = x"},
		"a hard link":                                    {[]made{file("a/x", "x"), hardlink("y", "a/x")}, "a/\na/x = x\ny = x"},
		"a hard link to a symbolic link":                 {[]made{symlink("l", "/outside"), hardlink("m", "l")}, "l -> /outside\nm -> /outside"},
		"a hard link to itself":                          {[]made{file("x", "x"), hardlink("x", "x")}, "x = x"},
		"a hard link takes another's place":              {[]made{file("x", "x"), file("y", "y"), hardlink("y", "x")}, "x = x\ny = x"},
		"a whiteout":                                     {[]made{file("d/.wh.x", "")}, "d/\nd/x c0:0"},
		"a whiteout of the root":                         {[]made{file(".wh.x", "")}, "x c0:0"},
		"an opaque folder":                               {[]made{dir("d"), file("d/.wh..wh..opq", ""), file("d/x", "x")}, "d/ opaque\nd/x = x"},
		"an opaque folder that was not named":            {[]made{file("d/.wh..wh..opq", "")}, "d/ opaque"},
		"a whiteout before its folder makes it opaque":   {[]made{file(".wh.d", ""), dir("d"), file("d/x", "x")}, "d/ opaque\nd/x = x"},
		"a whiteout before an implied folder":            {[]made{file(".wh.d", ""), file("d/e/x", "x")}, "d/ opaque\nd/e/\nd/e/x = x"},
		"a whiteout after its folder makes it opaque":    {[]made{file("d/x", "x"), file(".wh.d", "")}, "d/ opaque\nd/x = x"},
		"a whiteout hides nothing of its own layer":      {[]made{file("x", "x"), file(".wh.x", "")}, "x = x"},
		"a file takes a whiteout's place":                {[]made{file(".wh.x", ""), file("x", "x")}, "x = x"},
		"aufs' own files are left out":                   {[]made{file(".wh..wh.plnk", ""), file(".wh..wh.aufs", "")}, ""},
		"devices and fifos":                              {[]made{{tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, ""}, {tar.Header{Typeflag: tar.TypeBlock, Name: "sda", Devmajor: 8, Devminor: 300}, ""}, {tar.Header{Typeflag: tar.TypeFifo, Name: "pipe"}, ""}}, "null c1:3\npipe fifo\nsda b8:300"},
		"nothing at all":                                 {nil, ""},
		"a file that is all zeros keeps its length":      {[]made{file("z", "\x00\x00\x00")}, "z = \x00\x00\x00"},
		"a dangling link in the middle is made a folder": {[]made{symlink("run", "var/run"), file("run/x/y", "x")}, "run -> var/run\nvar/\nvar/run/\nvar/run/x/\nvar/run/x/y = x"},
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			if _, err := Layer(t.Context(), bytes.NewReader(tarOf(t, c.in...)), y.root, Defaults); err != nil {
				t.Fatal(err)
			}
			if got := y.listing(t); got != c.want {
				t.Errorf("made\n%s\nwant\n%s", got, c.want)
			}
			y.untouched(t)
		})
	}
}

func TestLayerRefuses(t *testing.T) {
	owner := func(uid, gid int) made {
		m := file("x", "")
		m.Uid, m.Gid = uid, gid
		return m
	}
	attr := func(name, value string) made {
		m := file("x", "")
		m.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
		return m
	}
	small := Limits{Entries: 3, Bytes: 1000, Folders: 200, Steps: 1000}
	for name, c := range map[string]struct {
		in     []made
		limits Limits
		says   string
	}{
		"a name that leads up":              {[]made{file("../outside/x", "x")}, Defaults, "leads outside"},
		"a name that leads up in the midst": {[]made{file("a/../../outside/x", "x")}, Defaults, "leads outside"},
		"a hard link that leads up":         {[]made{hardlink("x", "../outside/secret")}, Defaults, "leads outside"},
		"a hard link through a link out":    {[]made{symlink("l", "../outside"), hardlink("x", "l/secret")}, Defaults, "not in this layer"},
		"a hard link to what is missing":    {[]made{hardlink("x", "y")}, Defaults, "not in this layer"},
		"a hard link to a folder":           {[]made{dir("d"), hardlink("x", "d")}, Defaults, "no file"},
		"a hard link to the root":           {[]made{hardlink("x", "/")}, Defaults, "root folder"},
		"a link that is a loop":             {[]made{symlink("a", "b"), symlink("b", "a"), file("a/x", "x")}, Defaults, "links"},
		"a file in the place of the root":   {[]made{symlink("./", "x")}, Defaults, "root folder"},
		"an entry below a file":             {[]made{file("a", "x"), file("a/b", "x")}, Defaults, "through a file"},
		"an owner above what zones have":    {[]made{owner(65536, 0)}, Defaults, "above 65535"},
		"a group above what zones have":     {[]made{owner(0, 100000)}, Defaults, "above 65535"},
		"a component that is too long":      {[]made{file(strings.Repeat("a", 256), "")}, Defaults, "longer than"},
		"a path that is too long":           {[]made{file(strings.Repeat("a/", 2000)+"x", "")}, Defaults, "longer than"},
		"a path that links make too long":   {deepLinks(), Defaults, "longer than"},
		"a link target that is too long":    {[]made{symlink("l", strings.Repeat("a", 5000))}, Defaults, "target"},
		"a whiteout of nothing":             {[]made{file(".wh.", "")}, Defaults, "hides nothing"},
		"a whiteout of the folder above":    {[]made{file("d/.wh...", "")}, Defaults, "hides nothing"},
		"a device that cannot be":           {[]made{{tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 5000}, ""}}, Defaults, "no device"},
		"an entry of an unknown type":       {[]made{{tar.Header{Typeflag: 'Z', Name: "z"}, ""}}, Defaults, "unknown"},
		"too many entries":                  {[]made{file("a", ""), file("b", ""), file("c", ""), file("d", "")}, small, "3 entries"},
		"too many bytes":                    {[]made{file("a", strings.Repeat("x", 600)), file("b", strings.Repeat("x", 600))}, small, "larger than"},
		"too many folders":                  {[]made{file(strings.Repeat("a/", 20)+"x", "")}, small, "more folders"},
		"too many steps by deep links":      {deepAgain(), Limits{Entries: 300, Bytes: 1000, Folders: 1 << 20, Steps: 300 * 100}, "more than 30000 times"},
		"an attribute that is too long":     {[]made{attr("user.x", strings.Repeat("x", 70000))}, Defaults, "more than what is accepted"},
		"a capability that is none":         {[]made{attr("security.capability", "nonsense")}, Defaults, "refuses"},
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			_, err := Layer(t.Context(), bytes.NewReader(tarOf(t, c.in...)), y.root, c.limits)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error is %v, want one that says %q", err, c.says)
			}
			y.untouched(t)
		})
	}
}

// deepLinks is a path that grows beyond bounds by links within bounds.
func deepLinks() []made {
	long := strings.Repeat(strings.Repeat("a", 250)+"/", 8) // 2008 bytes
	return []made{symlink("l", long+"m"), symlink(long+"m", strings.Repeat("b/", 900)), file("l/x", "x")}
}

// deepAgain are many entries in one deep folder that a link leads to, with others between.
func deepAgain() []made {
	all := []made{symlink("l", strings.Repeat("a/", 50))}
	for i := range 100 {
		all = append(all, file(fmt.Sprint("l/", i), ""), file(fmt.Sprint(i), ""))
	}
	return all
}

func TestBrokenTarsAreInvalid(t *testing.T) {
	whole := tarOf(t, file("a", strings.Repeat("x", 5000)))
	for name, in := range map[string][]byte{
		"truncated in a header": whole[:300],
		"truncated in a file":   whole[:3000],
		"no tar at all":         bytes.Repeat([]byte("garbage "), 200),
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t)
			if _, err := Layer(t.Context(), bytes.NewReader(in), y.root, Defaults); !fault.Is(err, fault.Invalid) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestMetadataIsKept(t *testing.T) {
	y := newYard(t)
	sparse := file("f", "data")
	sparse.Mode, sparse.Uid, sparse.Gid = 0o6755, 65535, 1000
	sparse.PAXRecords = map[string]string{
		// VFS_CAP_REVISION_2, effective, CAP_NET_BIND_SERVICE. Source: linux/capability.h.
		"SCHILY.xattr.security.capability":    "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.note":              "hello",
		"SCHILY.xattr.trusted.overlay.opaque": "y",
		"SCHILY.xattr.security.selinux":       "label",
		"SCHILY.xattr.user.overlay.opaque":    "y",
	}
	d := dir("d")
	d.Uid, d.Mode = 7, 0o1777
	root := dir("./")
	root.Mode, root.Gid = 0o711, 9
	l := symlink("l", "f")
	l.Uid = 12
	stats, err := Layer(t.Context(), bytes.NewReader(tarOf(t, root, d, file("d/x", ""), sparse, l)), y.root, Defaults)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Dropped != 3 || stats.Entries != 5 || stats.Bytes != 4 {
		t.Errorf("stats are %+v", stats)
	}
	for path, want := range map[string]struct {
		mode     uint32
		uid, gid uint32
	}{
		"":  {syscall.S_IFDIR | 0o711, 0, 9},
		"d": {syscall.S_IFDIR | 0o1777, 7, 0},
		"f": {syscall.S_IFREG | 0o6755, 65535, 1000},
		"l": {syscall.S_IFLNK | 0o777, 12, 0},
	} {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(y.root, path), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid || st.Mtim.Nano() != then.UnixNano() {
			t.Errorf("%q is mode %o of %d:%d at %d, want %o of %d:%d at %d", path, st.Mode, st.Uid, st.Gid, st.Mtim.Nano(), want.mode, want.uid, want.gid, then.UnixNano())
		}
	}
	for attr, there := range map[string]bool{"security.capability": true, "user.note": true, "trusted.overlay.opaque": false, "security.selinux": false, "user.overlay.opaque": false} {
		_, err := unix.Lgetxattr(filepath.Join(y.root, "f"), attr, make([]byte, 100))
		if (err == nil) != there {
			t.Errorf("attribute %s: %v", attr, err)
		}
	}
}

func TestAnImpliedFolderIsAsEverySystemHasIt(t *testing.T) {
	y := newYard(t)
	if _, err := Layer(t.Context(), bytes.NewReader(tarOf(t, file("tmp/x", ""), file("root/x", ""), file("var/tmp/x", ""))), y.root, Defaults); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{"tmp": 0o1777, "root": 0o700, "var": 0o755, "var/tmp": 0o1777} {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(y.root, path), &st); err != nil || st.Mode&0o7777 != want || st.Mtim.Sec != 0 {
			t.Errorf("%s has mode %o at %d, %v; want %o at 0", path, st.Mode&0o7777, st.Mtim.Sec, err, want)
		}
	}
}

func TestCancelledInTheMiddle(t *testing.T) {
	y := newYard(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Layer(ctx, bytes.NewReader(tarOf(t, file("a", "x"))), y.root, Defaults)
	if err == nil || ctx.Err() == nil {
		t.Fatalf("error is %v", err)
	}
}

func FuzzLayer(f *testing.F) {
	seeds := [][]made{
		{dir("a"), file("a/b", "x"), hardlink("c", "a/b")},
		{symlink("up", "../outside"), file("up/secret", "new"), hardlink("x", "up/secret")},
		{symlink("abs", "/outside"), dir("abs"), file("abs/x", "x")},
		{symlink("a", "b"), symlink("b", ".."), file("a/b/a/outside/secret", "x")},
		{file(".wh.a", ""), dir("a"), file("a/.wh..wh..opq", ""), file(".wh..", "")},
		{dir("d"), symlink("d/l", ".."), file("d/l/d/l/x", "x"), symlink("d", "."), file("d/y", "y")},
		{file("../outside/secret", "x")}, {hardlink("../outside/x", "/etc/passwd")},
		{symlink("l", "../outside/secret"), file("l", "x"), hardlink("l", "l"), symlink("l/", "/")},
	}
	for _, s := range seeds {
		f.Add(tarOf(f, s...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		y := newYard(t)
		stats, err := Layer(t.Context(), bytes.NewReader(data), y.root, Limits{Entries: 100, Bytes: 1 << 20, Folders: 1 << 16, Steps: 1 << 20})
		if stats.Bytes > 1<<20 || stats.Entries > 101 {
			t.Errorf("limits passed: %+v", stats)
		}
		_ = err
		y.untouched(t)
	})
}

// words are what FuzzEntries makes names of: few, so that they meet.
var words = []string{"a", "b", "c", "..", ".", "outside", "secret", ".wh.a", ".wh.b", ".wh..wh..opq", "", strings.Repeat("n", 255)}

// script turns fuzzed bytes into entries: a type, a name and a link of up to
// four words each, so that the fuzzer need not learn tar's checksums.
func script(data []byte) []made {
	types := []byte{tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeFifo}
	path := func(b []byte) string {
		var parts []string
		for _, x := range b {
			if x&0x80 == 0 {
				parts = append(parts, words[int(x)%len(words)])
			}
		}
		return strings.Join(parts, "/")
	}
	var entries []made
	for len(data) >= 9 && len(entries) < 50 {
		m := made{tar.Header{Typeflag: types[int(data[0])%len(types)], Name: path(data[1:5]), Mode: 0o755}, ""}
		switch m.Typeflag {
		case tar.TypeReg:
			m.data = "data"
			m.PAXRecords = map[string]string{"SCHILY.xattr.user.a": "b"}
		case tar.TypeSymlink, tar.TypeLink:
			m.Linkname = path(data[5:9])
		}
		if m.Typeflag != tar.TypeDir {
			m.Name = strings.TrimRight(m.Name, "/") // which the writer refuses
		}
		if m.Name != "" {
			entries = append(entries, m)
		}
		data = data[9:]
	}
	return entries
}

func FuzzEntries(f *testing.F) {
	f.Add([]byte("\x02\x00\x80\x80\x80\x03\x05\x80\x80\x00\x00\x06\x80\x80\x00\x00\x00\x00")) // a -> ../outside, a/secret
	f.Add([]byte("\x02\x00\x80\x80\x80\x0a\x05\x80\x80\x03\x01\x80\x80\x80\x00\x06\x80\x80")) // a -> /outside, b linked to a/secret
	f.Add([]byte("\x00\x07\x80\x80\x80\x00\x00\x00\x00\x00\x00\x01\x02\x80\x00\x00\x00\x00")) // .wh.a, a/b/c
	f.Add([]byte("\x02\x00\x00\x80\x80\x04\x80\x80\x80\x02\x00\x80\x80\x80\x03\x03\x80\x80\x00\x00\x00\x05\x06\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		y := newYard(t)
		stats, err := Layer(t.Context(), bytes.NewReader(tarOf(t, script(data)...)), y.root, Limits{Entries: 100, Bytes: 1 << 20, Folders: 1 << 16, Steps: 1 << 20})
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Errorf("after %d entries: %v (%s)", stats.Entries, err, fault.KindOf(err))
		}
		y.untouched(t)
	})
}

func TestWhatTheHostCannotDoIsNoFaultOfOurs(t *testing.T) {
	for err, kind := range map[error]fault.Kind{unix.ENOSPC: fault.Busy, unix.EDQUOT: fault.Busy, unix.EMLINK: fault.Unable, unix.EPERM: fault.Unable, unix.EOPNOTSUPP: fault.Unable} {
		if got := explain(fault.Wrap(err, "entry x")); !fault.Is(got, kind) || fault.All(got)[0].Hint == "" {
			t.Errorf("%v: %v, want %s with a hint", err, got, kind)
		}
	}
}
