package warm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

// key is one of any number of small machines.
func key(n int) warm.Key {
	return warm.Key{Inputs: []string{strconv.Itoa(n)}, Memory: 8 * unit.MiB, TSC: 2_000_000}
}

// pretend is a Boot without a machine; booted counts how often it was asked.
func pretend(booted *atomic.Int32) warm.Boot {
	return func(_ context.Context, memory, state *os.File) error {
		booted.Add(1)
		page := make([]byte, os.Getpagesize())
		_, zeros := memory.WriteAt(page, 0) // what is written is not a hole, though it is zeros
		page[17] = 1
		_, data := memory.WriteAt(page, 5<<20)
		_, err := state.WriteString("the state")
		return errors.Join(zeros, data, err)
	}
}

func open(t *testing.T, dir string, o warm.Options) *warm.Store {
	t.Helper()
	s, err := warm.Open(dir, o)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestOneBootsForAll(t *testing.T) {
	s := open(t, t.TempDir(), warm.Options{})
	if _, err := s.Get(t.Context(), key(1)); fault.KindOf(err) != fault.Missing {
		t.Fatalf("there is an image: %v", err)
	}
	var booted atomic.Int32
	slow := make(chan struct{})
	boot := func(ctx context.Context, memory, state *os.File) error {
		<-slow
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return pretend(&booted)(ctx, memory, state)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel() // who asked first does not wait for it
	if _, err := s.Image(gone, key(1), boot); fault.KindOf(err) != fault.Busy {
		t.Errorf("a caller that is gone is told %v", err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			i, err := s.Image(t.Context(), key(1), boot)
			if err != nil {
				t.Error(err)
				return
			}
			i.Close()
		})
	}
	close(slow)
	all.Wait()
	if n := booted.Load(); n != 1 {
		t.Errorf("%d booted", n)
	}
	s.Settle(t.Context())
}

func TestAnImageFromWhichNothingGoesOnIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, warm.Options{})
	var booted atomic.Int32
	for round, c := range []struct {
		wentOn bool
		boots  int32
	}{{false, 1}, {true, 1}, {false, 1}, {false, 1}, {true, 2}, {false, 2}, {false, 2}, {false, 3}} {
		i, err := s.Image(t.Context(), key(1), pretend(&booted))
		must(t, err)
		if n := booted.Load(); n != c.boots {
			t.Fatalf("round %d: %d booted, want %d", round, n, c.boots)
		}
		s.Tell(key(1), c.wentOn)
		if _, err := i.Memory.Stat(); err != nil {
			t.Errorf("round %d: who has it open: %v", round, err)
		}
		must(t, i.Close())
	}
	s.Tell(key(2), false) // there is none
}

func TestAnImageFromWhichNothingGoesOnAgainAndAgainIsNotMadeAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, warm.Options{})
	var booted atomic.Int32
	for round, want := range []int32{1, 2, 2, 2} {
		s.Make(key(1), pretend(&booted), nil)
		s.Settle(t.Context())
		if n := booted.Load(); n != want {
			t.Errorf("round %d: %d booted, want %d", round, n, want)
		}
		s.Tell(key(1), false)
		s.Tell(key(1), false)
	}
	s.Make(key(2), pretend(&booted), nil) // another is not held back
	s.Settle(t.Context())
	if n := booted.Load(); n != 3 {
		t.Errorf("%d booted", n)
	}
}

func TestABootThatFailsIsToldAndNotTriedAtOnceInTheBackground(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, warm.Options{})
	var booted atomic.Int32
	failing := func(context.Context, *os.File, *os.File) error {
		booted.Add(1)
		return fault.Unablef("no")
	}
	if _, err := s.Image(t.Context(), key(1), failing); fault.KindOf(err) != fault.Unable {
		t.Error(err)
	}
	s.Make(key(1), failing, func() { t.Error("what failed is made") })
	s.Settle(t.Context())
	if n := booted.Load(); n != 1 {
		t.Errorf("it was tried %d times", n)
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("%v is left", entries)
	}
	nothing := func(context.Context, *os.File, *os.File) error { return nil }
	if _, err := s.Image(t.Context(), key(2), nothing); err == nil {
		t.Error("an image without a state is one")
	}
}

func TestWhoWouldNotBootWaitsForNoBoot(t *testing.T) {
	s := open(t, t.TempDir(), warm.Options{})
	var booted atomic.Int32
	slow := make(chan struct{})
	s.Make(key(1), func(ctx context.Context, memory, state *os.File) error {
		<-slow
		return pretend(&booted)(ctx, memory, state)
	}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), require.Patience(10*time.Second))
	defer cancel()
	if _, err := s.Get(ctx, key(1)); fault.KindOf(err) != fault.Missing {
		t.Errorf("while one boots: %v", err)
	}
	close(slow)
	s.Settle(t.Context())
	i, err := s.Get(t.Context(), key(1))
	must(t, err)
	i.Close()
}

func TestAnImageOutlivesItsDaemon(t *testing.T) {
	dir := t.TempDir()
	var booted atomic.Int32
	s := open(t, dir, warm.Options{})
	s.Make(key(1), pretend(&booted), nil)
	s.Settle(t.Context())
	must(t, s.Close(), os.MkdirAll(filepath.Join(dir, "work", "half"), 0o700))
	s = open(t, dir, warm.Options{})
	i, err := s.Image(t.Context(), key(1), pretend(&booted))
	must(t, err)
	defer i.Close()
	b := make([]byte, 1)
	if _, err := i.Memory.ReadAt(b, 5<<20+17); err != nil || b[0] != 1 || booted.Load() != 1 {
		t.Errorf("%v, %v, booted %d times", b, err, booted.Load())
	}
	info, err := i.Memory.Stat()
	must(t, err)
	var st unix.Stat_t
	must(t, unix.Fstat(int(i.Memory.Fd()), &st))
	if info.Size() != 8<<20 || st.Blocks*512 != int64(os.Getpagesize()) {
		t.Errorf("it has %d bytes and takes %d", info.Size(), st.Blocks*512)
	}
	if _, err := os.Stat(filepath.Join(dir, "work", "half")); err == nil {
		t.Error("what was half made is still there")
	}
}

func TestWhatIsNotWholeIsRemoved(t *testing.T) {
	for sentence, spoil := range map[string]func(dir string) error{
		"one byte of the memory": func(dir string) error { return poke(filepath.Join(dir, "memory"), 5<<20+100) },
		"a page that was zeros":  func(dir string) error { return poke(filepath.Join(dir, "memory"), 1<<20) },
		"a page that is zeros now": func(dir string) error {
			return errors.Join(os.Truncate(filepath.Join(dir, "memory"), 0), os.Truncate(filepath.Join(dir, "memory"), 8<<20))
		},
		"a short memory":   func(dir string) error { return os.Truncate(filepath.Join(dir, "memory"), 1<<20) },
		"no memory":        func(dir string) error { return os.Remove(filepath.Join(dir, "memory")) },
		"a byte of state":  func(dir string) error { return poke(filepath.Join(dir, "state"), 2) },
		"a short state":    func(dir string) error { return os.Truncate(filepath.Join(dir, "state"), 3) },
		"no record":        func(dir string) error { return os.Remove(filepath.Join(dir, "record.json")) },
		"half a record":    func(dir string) error { return os.Truncate(filepath.Join(dir, "record.json"), 40) },
		"another's record": func(dir string) error { return os.WriteFile(filepath.Join(dir, "record.json"), []byte("{}"), 0o600) },
		"an unknown record": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "record.json"), []byte(`{"x":1}`), 0o600)
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := t.TempDir()
			var booted atomic.Int32
			s := open(t, dir, warm.Options{})
			s.Make(key(1), pretend(&booted), nil)
			s.Settle(t.Context())
			must(t, s.Close(), spoil(filepath.Join(dir, key(1).Digest())))
			s = open(t, dir, warm.Options{})
			if _, err := s.Get(t.Context(), key(1)); fault.KindOf(err) != fault.Missing {
				t.Errorf("it is taken: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, key(1).Digest())); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
			i, err := s.Image(t.Context(), key(1), pretend(&booted))
			must(t, err)
			i.Close()
		})
	}
}

func poke(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{0xee}, at)
	return errors.Join(err, f.Close())
}

func TestNobodyCanChangeAnImage(t *testing.T) {
	s := open(t, t.TempDir(), warm.Options{})
	i, err := s.Image(t.Context(), key(1), pretend(new(atomic.Int32)))
	must(t, err)
	defer i.Close()
	// As QEMU opens it: by name, for writing.
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(i.Memory.Fd())), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	fd := int(f.Fd())
	own, err := unix.Mmap(fd, 0, 8<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	must(t, err)
	defer unix.Munmap(own)
	own[5<<20+17] = 99
	for what, try := range map[string]func() error{
		"written":    func() error { _, err := f.WriteAt([]byte{1}, 0); return err },
		"truncated":  func() error { return f.Truncate(0) },
		"lengthened": func() error { return f.Truncate(16 << 20) },
		"punched": func() error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 5<<20, 4096)
		},
		"unsealed": func() error { _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, 0); return err },
		"mapped shared": func() error {
			_, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		},
		"removed": func() error {
			b, err := unix.Mmap(fd, 5<<20, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
			if err != nil {
				return nil
			}
			defer unix.Munmap(b)
			return unix.Madvise(b, unix.MADV_REMOVE)
		},
	} {
		if err := try(); err == nil {
			t.Errorf("it can be %s", what)
		}
	}
	b := make([]byte, 1)
	if _, err := i.Memory.ReadAt(b, 5<<20+17); err != nil || b[0] != 1 {
		t.Errorf("it was changed: %v, %v", b, err)
	}
}

func TestWhatWasNotUsedForLongestGoes(t *testing.T) {
	dir := t.TempDir()
	var booted atomic.Int32
	s := open(t, dir, warm.Options{Resident: 1, Kept: 2})
	for n := range 3 {
		i, err := s.Image(t.Context(), key(n), pretend(&booted))
		must(t, err)
		i.Close()
		old := time.Now().Add(time.Duration(n-10) * time.Minute)
		must(t, os.Chtimes(filepath.Join(dir, key(n).Digest()), old, old))
	}
	for n, want := range []bool{false, true, true} {
		if _, err := os.Stat(filepath.Join(dir, key(n).Digest())); (err == nil) != want {
			t.Errorf("image %d is kept: %v", n, err == nil)
		}
	}
	i, err := s.Get(t.Context(), key(1)) // which is on the disk only
	must(t, err)
	defer i.Close()
	j, err := s.Get(t.Context(), key(2))
	must(t, err)
	defer j.Close()
	if b := make([]byte, 1); booted.Load() != 3 {
		t.Error("what is on the disk was booted again")
	} else if _, err := i.Memory.ReadAt(b, 5<<20+17); err != nil || b[0] != 1 {
		t.Error("an image that was let go of is gone under a clone")
	}
}

func TestTooManyBytesAreNotKept(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, warm.Options{Size: 12 << 10})
	for n := range 2 {
		i, err := s.Image(t.Context(), key(n), pretend(new(atomic.Int32)))
		must(t, err)
		i.Close()
	}
	if _, err := os.Stat(filepath.Join(dir, key(0).Digest())); err == nil {
		t.Error("both are kept")
	}
	if _, err := os.Stat(filepath.Join(dir, key(1).Digest())); err != nil {
		t.Error("neither is kept")
	}
}

func TestAnImageIsMadeAnew(t *testing.T) {
	for sentence, c := range map[string]struct {
		options warm.Options
		change  func(*warm.Key)
		want    int32
	}{
		"not while it is young":                   {warm.Options{}, func(*warm.Key) {}, 1},
		"when it is old":                          {warm.Options{MaxAge: time.Nanosecond}, func(*warm.Key) {}, 2},
		"when the counter runs at another rate":   {warm.Options{}, func(k *warm.Key) { k.TSC += 100_000 }, 2},
		"not when that is measured a little else": {warm.Options{}, func(k *warm.Key) { k.TSC += 300 }, 1},
		"when it is another key":                  {warm.Options{}, func(k *warm.Key) { k.Args = []string{"-m"} }, 2},
	} {
		t.Run(sentence, func(t *testing.T) {
			dir := t.TempDir()
			var booted atomic.Int32
			s := open(t, dir, c.options)
			s.Make(key(1), pretend(&booted), nil)
			s.Settle(t.Context())
			must(t, s.Close())
			s = open(t, dir, warm.Options{MaxAge: c.options.MaxAge})
			k := key(1)
			c.change(&k)
			s.Make(k, pretend(&booted), nil)
			s.Settle(t.Context())
			if n := booted.Load(); n != c.want {
				t.Errorf("%d were booted, not %d", n, c.want)
			}
		})
	}
}

func TestAKeyIsAllThatASavedSystemDependsOn(t *testing.T) {
	self, err := os.Executable()
	must(t, err)
	program := qemu.Program{Path: self, Version: "7.2.0"}
	base := qemu.Guest{Name: "a", Accelerator: qemu.TCG, Memory: unit.GiB, Processors: 1, TSC: 2_000_000, Kernel: "/k", Initrd: "/i", Firmware: "/f"}
	digest := func(p qemu.Program, g qemu.Guest, inputs ...string) string {
		k, err := warm.KeyOf(p, g, inputs...)
		must(t, err)
		return k.Digest()
	}
	want := digest(program, base, "kernel", "initramfs")
	for sentence, c := range map[string]struct {
		change func(*qemu.Program, *qemu.Guest, []string)
		same   bool
	}{
		"its name":             {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.Name = "b" }, true},
		"its address":          {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.MAC = "02:00:00:00:00:09" }, true},
		"its descriptors":      {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.Disk, g.Tap, g.Monitor = 9, 8, 7 }, true},
		"the counter":          {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.TSC = 3_000_000 }, true},
		"its memory":           {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.Memory = 2 * unit.GiB }, false},
		"its processors":       {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.Processors = 2 }, false},
		"the accelerator":      {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.Accelerator = qemu.KVM }, false},
		"the firmware":         {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.Firmware = "" }, false},
		"QEMU's version":       {func(p *qemu.Program, _ *qemu.Guest, _ []string) { p.Version = "7.2.1" }, false},
		"QEMU's program":       {func(p *qemu.Program, _ *qemu.Guest, _ []string) { p.Path = "/proc/self/exe" }, false},
		"what it boots":        {func(_ *qemu.Program, _ *qemu.Guest, in []string) { in[0] = "other" }, false},
		"its initramfs":        {func(_ *qemu.Program, _ *qemu.Guest, in []string) { in[1] = "other" }, false},
		"whether it rehearses": {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.Rehearsed = true }, true},
		"what it draws from":   {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.OwnEntropy = true }, true},
		"whether it waits":     {func(_ *qemu.Program, g *qemu.Guest, _ []string) { g.Incoming, g.StartStopped = true, true }, true},
	} {
		p, g, in := program, base, []string{"kernel", "initramfs"}
		c.change(&p, &g, in)
		if got := digest(p, g, in...); (got == want) != c.same {
			t.Errorf("%s: the key is the same: %v", sentence, got == want)
		}
	}
	base.Volumes = []qemu.Volume{{Tag: "v", FD: 3}}
	if _, err := warm.KeyOf(program, base); fault.KindOf(err) != fault.Unable {
		t.Errorf("a guest with volumes has a key: %v", err)
	}
}
