package cpio

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"testing"
)

// entry is one entry as the kernel reads it.
type entry struct {
	name, data                         string
	mode, links, mtime, major, minor   uint64
	ino, owner, group, check, nameSize uint64
}

// read is an independent reader of the format.
func read(t *testing.T, archive []byte) []entry {
	t.Helper()
	var all []entry
	at := 0
	for {
		if string(archive[at:at+6]) != "070701" {
			t.Fatalf("no magic at %d: %q", at, archive[at:at+6])
		}
		var f [13]uint64
		for i := range f {
			v, err := strconv.ParseUint(string(archive[at+6+8*i:at+14+8*i]), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			f[i] = v
		}
		at += 110
		e := entry{ino: f[0], mode: f[1], owner: f[2], group: f[3], links: f[4], mtime: f[5], major: f[9], minor: f[10], nameSize: f[11], check: f[12]}
		e.name = strings.TrimSuffix(string(archive[at:at+int(f[11])]), "\x00")
		at = (at + int(f[11]) + 3) &^ 3
		e.data = string(archive[at : at+int(f[6])])
		at = (at + int(f[6]) + 3) &^ 3
		if e.name == "TRAILER!!!" {
			if rest := archive[at:]; len(archive)%512 != 0 || len(bytes.Trim(rest, "\x00")) != 0 {
				t.Errorf("the archive of %d bytes ends with %q", len(archive), rest)
			}
			return all
		}
		all = append(all, e)
	}
}

func write(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, err := range []error{
		w.Folder("dev", 0o755), w.Character("dev/console", 0o600, 5, 1),
		w.File("init", 0o755, 5, strings.NewReader("hello, and more")), w.File("empty", 0o644, 0, nil), w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if w.Size() != int64(b.Len()) {
		t.Errorf("size is %d, and %d bytes were written", w.Size(), b.Len())
	}
	return b.Bytes()
}

func TestAnArchiveIsWhatTheKernelReads(t *testing.T) {
	archive := write(t)
	want := []entry{
		{name: "dev", ino: 1, mode: 0o40755, links: 2, nameSize: 4},
		{name: "dev/console", ino: 2, mode: 0o20600, links: 1, major: 5, minor: 1, nameSize: 12},
		{name: "init", ino: 3, mode: 0o100755, links: 1, data: "hello", nameSize: 5},
		{name: "empty", ino: 4, mode: 0o100644, links: 1, nameSize: 6},
	}
	got := read(t, archive)
	if len(got) != len(want) {
		t.Fatalf("there are %d entries: %+v", len(got), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry is %+v, want %+v", got[i], want[i])
		}
	}
	if !bytes.Equal(archive, write(t)) {
		t.Error("the same entries made other bytes")
	}
}

func TestAFileThatIsShorterThanSaidBreaksTheArchive(t *testing.T) {
	w := NewWriter(io.Discard)
	if err := w.File("init", 0o755, 10, strings.NewReader("short")); err == nil {
		t.Error("it was accepted")
	}
	if err := w.Folder("more", 0o755); err == nil {
		t.Error("the broken archive goes on")
	}
	if err := w.Close(); err == nil {
		t.Error("the broken archive was ended")
	}
	if err := NewWriter(io.Discard).File("init", 0o755, 1<<32, nil); err == nil {
		t.Error("a file of 4 GiB was accepted")
	}
}
