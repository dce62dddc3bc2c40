package warm_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/vmagent/control"
)

// save is a Boot with the tests' machine.
func save(t testing.TB) warm.Boot {
	return func(ctx context.Context, memory, state *os.File) error {
		m := start(t, options{memory: memory, shared: true, blank: true})
		defer m.end()
		c := m.dial(ctx)
		info, err := c.Info(ctx)
		if err != nil {
			return err
		}
		if info.State != control.State_WAITING || len(info.Faults) > 0 {
			return fmt.Errorf("the agent says %v", info)
		}
		t.Logf("the source's agent answered after %v", time.Since(m.started).Round(time.Millisecond))
		c.Close()
		q := m.monitor(ctx)
		defer q.Close()
		return warm.Save(ctx, q, state)
	}
}

// clone is a machine that goes on from an image, as confined as it is in earnest.
func clone(t testing.TB, ctx context.Context, i *warm.Image) *machine {
	t.Helper()
	m := start(t, options{memory: i.Memory, incoming: true})
	q := m.monitor(ctx)
	defer q.Close()
	disk, err := os.Stat(m.disk)
	must(t, err, warm.Restore(ctx, q, i, disk.Size()))
	return m
}

func sum(t testing.TB, f *os.File) string {
	t.Helper()
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(f, 0, int64(memorySize)))
	must(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// unique prints what no two systems may have alike, a line each.
const unique = `dd if=/dev/urandom bs=16 count=1 2>/dev/null | od -An -tx1; cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid`

func TestClonesHaveNothingInCommonButWhatTheyBeginWith(t *testing.T) {
	require.Root(t)
	require.Machines(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	dir := t.TempDir()
	s, err := warm.Open(dir, warm.Options{})
	must(t, err)
	defer func() { s.Close() }()
	k := warm.Key{Memory: memorySize, TSC: qemu.TSC()}
	i, err := s.Image(ctx, k, save(t))
	must(t, err)
	before := sum(t, i.Memory)
	seen := map[string]bool{}
	for n := range 3 {
		if n == 2 { // after another daemon has taken over, from the disk
			must(t, s.Close(), i.Close())
			s, err = warm.Open(dir, warm.Options{})
			must(t, err)
			i, err = s.Get(ctx, k)
			must(t, err)
			if got := sum(t, i.Memory); got != before {
				t.Fatal("the image is another one after it was read")
			}
		}
		m := clone(t, ctx, i)
		c := m.dial(ctx)
		info, err := c.Info(ctx)
		must(t, err)
		if info.State != control.State_WAITING {
			t.Fatalf("a clone's agent says %v", info)
		}
		t.Logf("clone %d: its agent answered after %v", n, time.Since(m.started).Round(time.Millisecond))
		out := m.run(ctx, c, unique+`; date +%s; cat /sys/block/vdb/size /sys/class/net/eth0/address; echo stays >/file`)
		t.Logf("clone %d: its program ended after %v", n, time.Since(m.started).Round(time.Millisecond))
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != 6 {
			t.Fatalf("it says %q", out)
		}
		for _, line := range lines[:3] {
			if seen[line] {
				t.Errorf("two clones have %s", line)
			}
			seen[line] = true
		}
		var now int64
		fmt.Sscan(lines[3], &now)
		if off := time.Since(time.Unix(now, 0)); off < -2*time.Second || off > patience {
			t.Errorf("its clock is late by %v", off)
		}
		for at, want := range map[int]string{4: fmt.Sprint(diskSize / 512), 5: "02:00:00:00:00:17"} {
			if lines[at] != want {
				t.Errorf("line %d is %s, want %s", at, lines[at], want)
			}
		}
		select {
		case <-m.ended: // it switches itself off after its program
		case <-ctx.Done():
			t.Fatal("a clone does not end")
		}
	}
	if got := sum(t, i.Memory); got != before {
		t.Error("clones have changed the image")
	}
	i.Close()
}

func TestAnImageThatQEMUCannotReadIsToldSo(t *testing.T) {
	require.Root(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := warm.Open(t.TempDir(), warm.Options{})
	must(t, err)
	defer s.Close()
	i, err := s.Image(ctx, warm.Key{Memory: memorySize}, func(_ context.Context, _, state *os.File) error {
		_, err := state.WriteString(strings.Repeat("no state of QEMU's. ", 1000))
		return err
	})
	must(t, err)
	defer i.Close()
	m := start(t, options{memory: i.Memory, incoming: true})
	q := m.monitor(ctx)
	if err := warm.Restore(ctx, q, i, 1<<20); err == nil {
		t.Error("it goes on from nothing")
	}
}
