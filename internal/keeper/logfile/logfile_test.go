package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
)

func read(t *testing.T, dir string, o Options) (text string, records []Record) {
	t.Helper()
	var b strings.Builder
	err := Read(context.Background(), dir, o, func(r Record) error {
		b.Write(r.Data)
		r.Data = bytes.Clone(r.Data)
		records = append(records, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), records
}

func TestRecordsComeBackAsWritten(t *testing.T) {
	dir := t.TempDir()
	w := &Writer{Dir: dir, Size: 1 << 20, Files: 2}
	w.Append(Stdout, 5, []byte{0, 255, '\n', 0xA5, 0x5A})
	w.Append(Stderr, 6, bytes.Repeat([]byte("x"), MaxData+1))
	w.Close()
	w.Append(Stdout, 7, []byte("after a restart"))
	_, got := read(t, dir, Options{})
	if len(got) != 4 || got[0].Time != 5 || !bytes.Equal(got[0].Data, []byte{0, 255, '\n', 0xA5, 0x5A}) ||
		got[1].Stream != Stderr || len(got[1].Data) != MaxData || len(got[2].Data) != 1 || string(got[3].Data) != "after a restart" {
		t.Errorf("%d records", len(got))
	}
	if _, got := read(t, dir, Options{Since: 7}); len(got) != 1 {
		t.Errorf("since: %d records", len(got))
	}
	if text, _ := read(t, t.TempDir()+"/none", Options{}); text != "" {
		t.Error("a log that is not there has text")
	}
}

func TestRotationIsBoundedAndKeepsTheOrder(t *testing.T) {
	dir := t.TempDir()
	w := &Writer{Dir: dir, Size: 5000, Files: 3}
	var all strings.Builder
	for i := range 2000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		w.Append(Stdout, int64(i+1), []byte(line))
		if i%100 == 0 {
			w.Close() // as a new keeper would
		}
	}
	list, _ := os.ReadDir(dir)
	if len(list) != 3 {
		t.Errorf("%d files: %v", len(list), list)
	}
	for _, e := range list {
		if st, _ := e.Info(); st.Size() > 5000 {
			t.Errorf("%s has %d bytes", e.Name(), st.Size())
		}
	}
	text, got := read(t, dir, Options{})
	if !strings.HasSuffix(all.String(), text) || len(got) < 250 {
		t.Errorf("%d records, which are not the last written", len(got))
	}
}

func TestTail(t *testing.T) {
	dir := t.TempDir()
	w := &Writer{Dir: dir, Size: 4096, Files: 9}
	var all []string
	for i := range 500 {
		line := fmt.Sprintf("%d %s\n", i, strings.Repeat("y", i%40))
		all = append(all, line)
	}
	text := strings.Join(all, "")
	for rest, rng := text, rand.New(rand.NewPCG(1, 2)); rest != ""; {
		n := min(1+rng.IntN(90), len(rest))
		w.Append(Stdout, 1, []byte(rest[:n]))
		rest = rest[n:]
	}
	for _, n := range []int{1, 2, 3, 10, 100, 333, 499, 500, 501, 10000} {
		if got, _ := read(t, dir, Options{Tail: n}); got != strings.Join(all[max(0, 500-n):], "") {
			t.Errorf("tail %d: %d bytes, starts %.20q", n, len(got), got)
		}
	}
	if got, _ := read(t, dir, Options{Tail: -1}); got != "" {
		t.Errorf("tail of nothing: %q", got)
	}
	w.Append(Stdout, 1, []byte("unfinished"))
	if got, _ := read(t, dir, Options{Tail: 2}); got != all[499]+"unfinished" {
		t.Errorf("with an unfinished line: %q", got)
	}
}

func TestTornTailCostsOnlyItself(t *testing.T) {
	for cutOff := 1; cutOff < overhead+5; cutOff++ {
		dir := t.TempDir()
		w := &Writer{Dir: dir, Size: 1 << 20, Files: 3}
		w.Append(Stdout, 1, []byte("one\n"))
		w.Append(Stdout, 2, []byte("lost\n"))
		w.Close()
		st, _ := os.Stat(filepath.Join(dir, "log"))
		if err := os.Truncate(filepath.Join(dir, "log"), st.Size()-int64(cutOff)); err != nil {
			t.Fatal(err)
		}
		w.Append(Stdout, 3, []byte("two\n"))
		if got, _ := read(t, dir, Options{}); got != "one\ntwo\n" {
			t.Errorf("cut by %d: %q", cutOff, got)
		}
	}
}

func TestOutputThatCannotBeKeptIsCounted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	w := &Writer{Dir: dir, Size: 1 << 20, Files: 3}
	w.Append(Stdout, 1, []byte("12345"))
	w.Append(Stdout, 2, []byte("6"))
	os.Mkdir(dir, 0o700)
	w.Append(Stdout, 3, []byte("too early to try again"))
	w.Append(Stdout, 5e9, []byte("kept"))
	_, got := read(t, dir, Options{})
	if len(got) != 2 || got[0].Stream != Lost || string(got[0].Data) != "28" || string(got[1].Data) != "kept" || w.Lost() != 28 {
		t.Errorf("%+v, %d", got, w.Lost())
	}
}

func TestFollowGoesOnAcrossRotationAndEnds(t *testing.T) {
	dir := t.TempDir()
	w := &Writer{Dir: dir, Size: 6000, Files: 50}
	w.Append(Stdout, 1, []byte("before\n"))
	end := make(chan struct{})
	var got strings.Builder
	done := make(chan error)
	go func() {
		done <- Read(context.Background(), dir, Options{Follow: true, Tail: -1, End: end}, func(r Record) error {
			got.Write(r.Data)
			return nil
		})
	}()
	time.Sleep(50 * time.Millisecond) // until it stands at the end
	var want strings.Builder
	for i := range 2000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		w.Append(Stdout, 1, []byte(line))
		if i%200 == 0 {
			time.Sleep(3 * time.Millisecond)
		}
	}
	close(end)
	if err := <-done; err != nil || got.String() != want.String() {
		t.Errorf("%d bytes of %d, %v", got.Len(), want.Len(), err)
	}
	stop := errors.New("enough")
	if err := Read(context.Background(), dir, Options{}, func(Record) error { return stop }); err != stop {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := Read(ctx, dir, Options{Follow: true, Tail: -1}, func(Record) error { return nil }); err != nil {
		t.Errorf("err = %v", err)
	}
}

func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	w := &Writer{Dir: dir, Size: 1 << 20, Files: 1}
	w.Append(Stdout, 1, []byte("some\ntext"))
	w.Append(Stderr, 2, []byte("more\n"))
	seed, _ := os.ReadFile(filepath.Join(dir, "log"))
	f.Add(seed)
	f.Add(seed[:len(seed)-3])
	f.Fuzz(func(t *testing.T, file []byte) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "log"), file, 0o600)
		all, records := read(t, dir, Options{})
		for _, r := range records {
			if len(r.Data) > MaxData {
				t.Fatal("a record is too long")
			}
		}
		if tail, _ := read(t, dir, Options{Tail: 1}); !strings.HasSuffix(all, tail) {
			t.Error("the tail is not the end")
		}
		w := &Writer{Dir: dir, Size: 1 << 20, Files: 2}
		w.Append(Stdout, 1, []byte("next"))
		w.Close()
		if again, _ := read(t, dir, Options{}); !strings.HasSuffix(again, "next") && w.Lost() == 0 {
			t.Error("what was appended does not come back")
		}
	})
}

func TestAFollowerSeesAnEndThatIsThereAlready(t *testing.T) {
	watch := notify(t.TempDir())
	require.Host(t, "inotify", watch != nil, "the host has no more inotify instances")
	defer watch.Close()
	end := make(chan struct{})
	close(end)
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		for range 20_000 { // as often as it takes for one to overtake the other
			wait(t.Context(), watch, end)
		}
	}()
	select {
	case <-seen:
	case <-time.After(require.Patience(20 * time.Second)):
		t.Fatal("it waits for ever")
	}
}

func TestTailTakesAnyNumber(t *testing.T) {
	dir := t.TempDir()
	w := &Writer{Dir: dir, Size: 1 << 20, Files: 2}
	w.Append(Stdout, 1, []byte("a\nb\nc\n"))
	w.Close()
	for tail, want := range map[int]string{math.MaxInt: "a\nb\nc\n", math.MaxInt / 2: "a\nb\nc\n", 2: "b\nc\n", math.MinInt: ""} {
		if got, _ := read(t, dir, Options{Tail: tail}); got != want {
			t.Errorf("the last %d lines are %q", tail, got)
		}
	}
}
