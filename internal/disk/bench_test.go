package disk_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/mount/loop"
	"github.com/strata-project/strata/internal/unit"
)

type watch []time.Duration

func (w *watch) time(f func()) {
	start := time.Now()
	f()
	*w = append(*w, time.Since(start))
}

func (w watch) median() time.Duration {
	slices.Sort(w)
	return w[len(w)/2]
}

func BenchmarkCreateAndMount(b *testing.B) {
	for name, ready := range map[string]int{"cold": 0, "warm": 2} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			p := newPool(b, dir, disk.Options{Ready: ready})
			var create, attach watch
			for i := 0; b.Loop(); i++ {
				waitReady(b, dir, ready)
				path := filepath.Join(dir, fmt.Sprint(i, ".ext4"))
				var tree *mount.Tree
				create.time(func() { must(b, p.Create(ctx, path, 0)) })
				attach.time(func() {
					var err error
					tree, err = p.Mount(ctx, path)
					must(b, err)
				})
				must(b, tree.Close())
				must(b, p.Remove(path))
			}
			b.ReportMetric(float64(create.median().Microseconds()), "create-us")
			b.ReportMetric(float64(attach.median().Microseconds()), "mount-us")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// work is one kind of use of a file system; it returns how long it took.
var work = []struct {
	name string
	do   func(b *testing.B, dir string) time.Duration
}{
	{"write 256M and sync", func(b *testing.B, dir string) time.Duration {
		must(b, os.RemoveAll(dir+"/big"))
		return timed(func() { writeBig(b, dir+"/big", os.O_CREATE|os.O_WRONLY) })
	}},
	{"overwrite 256M and sync", func(b *testing.B, dir string) time.Duration {
		return timed(func() { writeBig(b, dir+"/big", os.O_WRONLY) })
	}},
	{"read 256M from the device", func(b *testing.B, dir string) time.Duration {
		f, err := os.Open(dir + "/big")
		must(b, err)
		defer f.Close()
		must(b, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
		buf := make([]byte, unit.MiB)
		return timed(func() {
			for n := 1; n > 0; {
				n, _ = f.Read(buf)
			}
		})
	}},
	{"200 times write 4K and fsync", func(b *testing.B, dir string) time.Duration {
		f, err := os.OpenFile(dir+"/log", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		must(b, err)
		defer f.Close()
		buf := make([]byte, 4096)
		return timed(func() {
			for range 200 {
				_, err := f.Write(buf)
				must(b, err)
				must(b, f.Sync())
			}
		})
	}},
	{"2000 small files and sync", func(b *testing.B, dir string) time.Duration {
		must(b, os.RemoveAll(dir+"/small"))
		must(b, os.Mkdir(dir+"/small", 0o700))
		return timed(func() {
			for i := range 2000 {
				must(b, os.WriteFile(fmt.Sprint(dir, "/small/", i), make([]byte, 3000), 0o600))
			}
			f, err := os.Open(dir)
			must(b, err)
			must(b, unix.Syncfs(int(f.Fd())))
			f.Close()
		})
	}},
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func writeBig(b *testing.B, path string, flags int) {
	f, err := os.OpenFile(path, flags, 0o600)
	must(b, err)
	defer f.Close()
	buf := make([]byte, unit.MiB)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for range 256 {
		_, err := f.Write(buf)
		must(b, err)
	}
	must(b, f.Sync())
}

// BenchmarkThroughput sets a private disk against the host's file system below
// it, by turns.
func BenchmarkThroughput(b *testing.B) {
	for name, o := range map[string]loop.Options{
		"direct":             {Direct: true, BlockSize: 4096},
		"direct, read-ahead": {Direct: true, BlockSize: 4096, ReadAhead: unit.MiB},
		"through the cache":  {BlockSize: 4096},
	} {
		b.Run(name, func(b *testing.B) {
			disk.SetLoop(b, o)
			dir := b.TempDir()
			p := newPool(b, dir, disk.Options{})
			path := filepath.Join(dir, "disk.ext4")
			must(b, p.Create(ctx, path, 0))
			tree, err := p.Mount(ctx, path)
			must(b, err)
			defer tree.Close()
			inside, host := make([]watch, len(work)), make([]watch, len(work))
			b.ReportMetric(0, "ns/op")
			for b.Loop() {
				for i, w := range work {
					host[i] = append(host[i], w.do(b, dir))
					inside[i] = append(inside[i], w.do(b, inTree(tree, "upper")))
				}
			}
			for i, w := range work {
				h, in := host[i].median(), inside[i].median()
				b.Logf("%-30s host %8v  inside %8v  = %3.0f %% of the host's speed", w.name, h.Round(time.Microsecond), in.Round(time.Microsecond), 100*float64(h)/float64(in))
			}
		})
	}
}
