package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/store"
)

const id = "0123456789ab"

func opened(t *testing.T) (*store.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Make(id); err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func record(n int) environment.Record {
	return environment.Record{ID: id, Name: fmt.Sprint("web-", n), Spec: api.Spec{Env: []string{strings.Repeat("x", n*100)}}, Phase: environment.PhaseCreated}
}

func TestWriteAndRead(t *testing.T) {
	s, dir := opened(t)
	for n, care := range []store.Care{store.Fleeting, store.Whole, store.Lasting} {
		if err := s.Write(record(n), care); err != nil {
			t.Fatal(err)
		}
		got, err := s.Read(id)
		if err != nil || got.Name != fmt.Sprint("web-", n) || got.Version != environment.Version {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if err := s.Make(id); !fault.Is(err, fault.Conflict) {
		t.Errorf("made twice: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "environments", id, ".*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAFullDiskIsSaid(t *testing.T) {
	require.Root(t)
	s, dir := opened(t)
	own := filepath.Join(dir, "environments", id)
	if err := unix.Mount("none", own, "tmpfs", 0, "nr_inodes=1"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(own, unix.MNT_DETACH)
	if err := s.Write(record(1), store.Lasting); !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "the disk is full") {
		t.Errorf("%v", err)
	}
}

func TestReadersSeeWholeRecords(t *testing.T) {
	s, _ := opened(t)
	if err := s.Write(record(1), store.Fleeting); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := s.Read(id); err != nil {
					t.Errorf("read: %v", err)
					return
				}
			}
		})
	}
	for n := range 200 {
		if err := s.Write(record(n), store.Fleeting); err != nil {
			t.Error(err)
		}
	}
	close(done)
	group.Wait()
}

func TestLoad(t *testing.T) {
	s, dir := opened(t)
	folders := filepath.Join(dir, "environments")
	if err := s.Write(record(1), store.Whole); err != nil {
		t.Fatal(err)
	}
	put := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(folders, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if content != "" {
			if err := os.WriteFile(filepath.Join(folders, name, "record.json"), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put("aaaaaaaaaaaa", "") // a create that was not finished
	put("bbbbbbbbbbbb", `{"version":1,"id":"bbbb`)
	put("cccccccccccc", `{"version":999,"id":"cccccccccccc"}`)
	put("dddddddddddd", `{"version":1,"id":"eeeeeeeeeeee"}`)
	put("ffffffffffff", `{"version":1,"id":"ffffffffffff","unheard_of":1}`)
	put("not-an-id", "{}")
	half := filepath.Join(folders, id, ".record-7")
	if err := os.WriteFile(half, []byte(`{"ver`), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range all {
		got[f.ID] = "ok"
		if f.Err != nil {
			got[f.ID] = fault.KindOf(f.Err).String()
		}
	}
	want := map[string]string{id: "ok", "aaaaaaaaaaaa": "missing", "bbbbbbbbbbbb": "internal", "cccccccccccc": "unable", "dddddddddddd": "internal", "ffffffffffff": "internal"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v; want %v", got, want)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("a half-written record is still there")
	}
}

func TestTrash(t *testing.T) {
	s, _ := opened(t)
	first, err := s.Trash(id, store.Lasting)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Trash(id, store.Fleeting); !fault.Is(err, fault.Missing) {
		t.Errorf("trashed twice: %v", err)
	}
	if err := s.Make(id); err != nil {
		t.Errorf("the id is not free: %v", err)
	}
	if _, err := s.Trash(id, store.Fleeting); err != nil {
		t.Errorf("the same id again: %v", err)
	}
	all, err := s.Trashed()
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	if err := s.Delete(first); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(s.Dir(id)); err == nil {
		t.Error("something outside the trash was deleted")
	}
	if all, _ := s.Trashed(); len(all) != 1 {
		t.Errorf("left: %v", all)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	f, err := store.Lock(dir, "process 42, socket /s")
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Lock(dir, "process 43")
	if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "process 42, socket /s") {
		t.Errorf("the second lock: %v", err)
	}
	f.Close()
	again, err := store.Lock(dir, "p 7")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if data, _ := os.ReadFile(filepath.Join(dir, "lock")); string(data) != "p 7\n" {
		t.Errorf("the lock says %q", data)
	}
}

// FuzzDecode holds that no record makes it panic, and that what is read prints
// the same when it is read again.
func FuzzDecode(f *testing.F) {
	good, _ := record(1).Encode()
	f.Add(good)
	f.Add([]byte(`{"version":1,"id":"0123456789ab"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := store.Decode(id, data)
		if err != nil {
			return
		}
		once, err := r.Encode()
		if err != nil {
			return // a time outside of what JSON holds, for one
		}
		r, err = store.Decode(id, once)
		if err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, _ := r.Encode(); !bytes.Equal(once, twice) {
			t.Fatalf("%s became %s", once, twice)
		}
	})
}

func TestSpareFoldersOfADaemonWithTheSamePidStay(t *testing.T) {
	s, dir := opened(t)
	if err := s.Prepare(); err != nil {
		t.Fatal(err)
	}
	many := 0
	for entries, err := os.ReadDir(filepath.Join(dir, "spare")); many < len(entries)/2; many++ {
		if err := errors.Join(err, s.Make(fmt.Sprintf("aaaaaaaaaa%02d", many))); err != nil {
			t.Fatal(err)
		}
	}
	again, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Prepare(); err != nil {
		t.Error(err)
	}
	for n := range many + 1 { // one that is adopted at the least
		if err := again.Make(fmt.Sprintf("bbbbbbbbbb%02d", n)); err != nil {
			t.Error(err)
		}
	}
}

func TestSpareFolders(t *testing.T) {
	s, dir := opened(t)
	if err := s.Prepare(); err != nil {
		t.Fatal(err)
	}
	spare := func() int {
		entries, _ := os.ReadDir(filepath.Join(dir, "spare"))
		return len(entries)
	}
	many := spare()
	if many == 0 {
		t.Fatal("none were made")
	}
	other := "aaaaaaaaaaaa"
	if err := s.Make(id); !fault.Is(err, fault.Conflict) {
		t.Errorf("over another: %v", err)
	}
	if err := s.Make(other); err != nil {
		t.Fatal(err)
	}
	r := record(3)
	r.ID = other
	for range 3 {
		if err := s.Write(r, store.Lasting); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Read(other); err != nil || got.Name != r.Name {
		t.Errorf("%+v, %v", got, err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "environments", other, ".*"))
	if len(left) > 0 || spare() > many-1 {
		t.Errorf("left %v, %d spare of %d", left, spare(), many)
	}
	// The next daemon takes them over, but for one that is half made.
	if err := os.Mkdir(filepath.Join(dir, "spare", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	again, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	before := spare()
	if err := again.Make("bbbbbbbbbbbb"); err != nil || spare() != before-1 {
		t.Errorf("%v, %d spare of %d", err, spare(), before)
	}
}
