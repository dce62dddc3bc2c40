package cli

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

func TestParseSide(t *testing.T) {
	for text, want := range map[string]side{
		"web:/etc": {"web", "/etc"}, "web:etc": {"web", "/etc"}, "/a:b": {"", "/a:b"}, "./a:b": {"", "./a:b"}, "-": {"", "-"},
		"plain": {"", "plain"}, "dir/a:b": {"", "dir/a:b"}, "..": {"", ".."}, "web:/a:b": {"web", "/a:b"},
	} {
		if got, err := parseSide(text); err != nil || got != want {
			t.Errorf("parseSide(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":/x", "web:"} {
		if got, err := parseSide(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("parseSide(%q) = %+v, %v; want an invalid fault", text, got, err)
		}
	}
}

func FuzzParseSide(f *testing.F) {
	f.Add("web:/etc")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSide(text)
		if err == nil && (s.path == "" || s.name != "" && !strings.HasPrefix(s.path, "/") || strings.Contains(s.name, "/")) {
			t.Errorf("%q gives %+v", text, s)
		}
	})
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "2026-01-01T00:00:00Z": now.Truncate(24 * time.Hour).Add(-24 * time.Hour), "1700000000.5": time.Unix(1700000000, 5e8), "": {},
	} {
		if got, err := parseMoment("since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("parseMoment(%q) = %v, %v", text, got, err)
		}
	}
	if _, err := parseMoment("since", "-5m", now); !fault.Is(err, fault.Invalid) {
		t.Errorf("a moment in the future: %v", err)
	}
}

func TestFiltersOfOneKeyAreAlternatives(t *testing.T) {
	f, err := eventFilter([]string{"operation=a", "name=web", "operation=b", "type=progress", "name=db", "type=template"})
	if got := fmt.Sprint(f.Operations, f.Names, f.Types); err != nil || got != "[a b] [web db] [progress template]" {
		t.Errorf("%s, %v", got, err)
	}
}

func TestComplaintsDoNotSteerATerminal(t *testing.T) {
	var said bytes.Buffer
	(&app{err: &said}).complain(fault.Unablef("one\x1b[2J\ttwo\nthree").At("a\x1bb").Help("four\rfive\u009b"))
	if want := "strata: one?[2J two\n    three\n  field: a?b\n  hint: four?five?\n"; said.String() != want {
		t.Errorf("%q", said.String())
	}
	said.Reset()
	(&app{err: &said}).say("note: %s", "one\x1b]0;two\a")
	if want := "strata: note: one?]0;two?\n"; said.String() != want {
		t.Errorf("%q", said.String())
	}
}

func TestDetachKeysLeaveTheSessionAndNothingElseIsLost(t *testing.T) {
	keys, err := parseKeys("")
	if err != nil || !bytes.Equal(keys, []byte{16, 17}) {
		t.Fatalf("default keys %v, %v", keys, err)
	}
	for typed, want := range map[string]struct {
		out  string
		left bool
	}{
		"abc": {"abc", false}, "a\x10\x11b": {"a", true}, "\x10x\x11": {"\x10x\x11", false}, "\x10\x10\x11": {"\x10", true},
	} {
		// One byte at a time, as a user types.
		d := &detachable{r: &slow{[]byte(typed)}, keys: keys}
		out, err := io.ReadAll(d)
		if got := err == client.ErrDetached; string(out) != want.out || got != want.left {
			t.Errorf("%q gives %q, %v; want %q, left %v", typed, out, err, want.out, want.left)
		}
	}
	for _, text := range []string{"ctrl-", "ctrl-1", "ab", "ctrl-p,,"} {
		if _, err := parseKeys(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("parseKeys(%q): %v", text, err)
		}
	}
}

type slow struct{ data []byte }

func (s *slow) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.data[:1])
	s.data = s.data[n:]
	return n, nil
}

func TestPackAndUnpackKeepFilesAsTheyAre(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	os.Mkdir(filepath.Join(from, "sub"), 0o750)
	os.WriteFile(filepath.Join(from, "sub", "file"), []byte("content"), 0o640)
	os.Link(filepath.Join(from, "sub", "file"), filepath.Join(from, "twin"))
	os.Symlink("sub/file", filepath.Join(from, "link"))
	os.WriteFile(filepath.Join(from, "suid"), nil, 0o755)
	os.Chmod(filepath.Join(from, "suid"), 0o755|os.ModeSetuid)
	old := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	os.Chtimes(filepath.Join(from, "sub"), old, old)
	var wire bytes.Buffer
	p := newPacker(&wire)
	if err := p.pack(from, "top", false); err != nil {
		t.Fatal(err)
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	if err := unpack(&wire, to, renamed("top", "new")); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(to, "new")
	data, err := os.ReadFile(filepath.Join(at, "sub", "file"))
	info, _ := os.Stat(filepath.Join(at, "sub"))
	if err != nil || string(data) != "content" || info.Mode().Perm() != 0o750 || !info.ModTime().Equal(old) {
		t.Errorf("%q %v, folder %v %v", data, err, info.Mode(), info.ModTime())
	}
	one, _ := os.Stat(filepath.Join(at, "sub", "file"))
	two, _ := os.Stat(filepath.Join(at, "twin"))
	if one.Sys().(*syscall.Stat_t).Ino != two.Sys().(*syscall.Stat_t).Ino {
		t.Error("the hard link is a copy")
	}
	if link, _ := os.Readlink(filepath.Join(at, "link")); link != "sub/file" {
		t.Errorf("link %q", link)
	}
	if info, _ := os.Stat(filepath.Join(at, "suid")); os.Geteuid() == 0 && info.Mode()&os.ModeSetuid == 0 {
		t.Error("set-user-id is lost")
	}
}

func TestUnpackNeverLeavesItsFolder(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	os.WriteFile(victim, []byte("host"), 0o644)
	for what, entries := range map[string][]tar.Header{
		"dots":               {{Name: "x/../../../victim", Typeflag: tar.TypeReg, Size: 4}},
		"an absolute path":   {{Name: victim, Typeflag: tar.TypeReg, Size: 4}},
		"through a link":     {{Name: "top/d", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "top/d/victim", Typeflag: tar.TypeReg, Size: 4}},
		"onto a link":        {{Name: "top/f", Typeflag: tar.TypeSymlink, Linkname: victim}, {Name: "top/f", Typeflag: tar.TypeReg, Size: 4}},
		"a hard link to it":  {{Name: "top/h", Typeflag: tar.TypeLink, Linkname: victim}, {Name: "top/h", Typeflag: tar.TypeReg, Size: 4}},
		"mode through links": {{Name: "top/m", Typeflag: tar.TypeSymlink, Linkname: outside}, {Name: "top/m", Typeflag: tar.TypeDir, Mode: 0o000}},
	} {
		var wire bytes.Buffer
		w := tar.NewWriter(&wire)
		for _, h := range entries {
			h.Mode |= 0o600
			w.WriteHeader(&h)
			if h.Size > 0 {
				io.WriteString(w, "evil")
			}
		}
		w.Close()
		err := unpack(&wire, filepath.Join(outside, "in"), renamed("top", "top"))
		if data, _ := os.ReadFile(victim); string(data) != "host" {
			t.Errorf("%s (%v): the file outside says %q", what, err, data)
		}
		if info, err := os.Stat(outside); err != nil || info.Mode().Perm() == 0o600 {
			t.Errorf("%s: the folder outside is %v, %v", what, info.Mode(), err)
		}
		os.RemoveAll(filepath.Join(outside, "in"))
	}
}

func TestUnpackRefusesWhatCannotFit(t *testing.T) {
	var wire bytes.Buffer
	w := tar.NewWriter(&wire)
	// 1 KiB that claims to be 4 EiB of holes, in the format that GNU tar calls 1.0.
	w.WriteHeader(&tar.Header{Name: "GNUSparseFile.0/top", Typeflag: tar.TypeReg, Size: 512, Mode: 0o600, Format: tar.FormatPAX})
	w.Write(append([]byte("1\n4611686018427387904\n0\n"), make([]byte, 512-24)...))
	w.Close()
	// The writer refuses these records, so they take the place of one of its own.
	var records strings.Builder
	for _, r := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=top", "GNU.sparse.realsize=4611686018427387904"} {
		for n := len(r) + 3; ; n++ {
			if line := fmt.Sprintf("%d %s\n", n, r); len(line) == n {
				records.WriteString(line)
				break
			}
		}
	}
	var head bytes.Buffer
	w = tar.NewWriter(&head)
	w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: int64(records.Len()), Mode: 0o600, Format: tar.FormatUSTAR})
	io.WriteString(w, records.String())
	w.Flush()
	block := head.Bytes()
	block[156] = tar.TypeXHeader
	sum := 0
	for i, b := range block[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int(b)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	err := unpack(io.MultiReader(&head, &wire), t.TempDir(), renamed("top", "top"))
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "holes counted") {
		t.Errorf("%v", err)
	}
}

func TestAFileThatDoesNotComeWholeLeavesTheFormerOne(t *testing.T) {
	var whole bytes.Buffer
	w := tar.NewWriter(&whole)
	w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg, Size: 1 << 20, Mode: 0o600})
	w.Write(make([]byte, 1<<20))
	w.Close()
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "x"), []byte("old"), 0o644)
	os.Mkdir(filepath.Join(dir, "folder"), 0o755)
	unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600)
	for to, tar := range map[string]io.Reader{"x": io.LimitReader(bytes.NewReader(whole.Bytes()), 1<<19), "folder": bytes.NewReader(whole.Bytes()), "pipe": bytes.NewReader(whole.Bytes())} {
		if err := unpack(tar, dir, renamed("x", to)); err == nil {
			t.Errorf("%s was written", to)
		}
	}
	if data, err := os.ReadFile(filepath.Join(dir, "x")); string(data) != "old" {
		t.Errorf("left of the former file is %q, %v", data, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 3 {
		t.Errorf("there are %v", list)
	}
	if err := unpack(&whole, dir, renamed("x", "x")); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "x")); err != nil || st.Size() != 1<<20 || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
}

func TestEveryCommandSaysHowItIsUsed(t *testing.T) {
	root := (&app{out: io.Discard, err: io.Discard}).command()
	commands := walk(root)
	if len(commands) < 40 {
		t.Fatalf("only %d commands", len(commands))
	}
	for _, c := range commands {
		if c.Short == "" || !strings.Contains(c.Long, "Examples:\n  ") {
			t.Errorf("%q has no description with examples", c.CommandPath())
		}
	}
}

func TestReferenceIsWhatTheCodeSays(t *testing.T) {
	var got bytes.Buffer
	if err := Reference(&got); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "cli.md"))
	if err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("docs/reference/cli.md is stale (%v): run `make generate`", err)
	}
}
