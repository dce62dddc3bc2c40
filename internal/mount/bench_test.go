package mount_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/mount"
)

// watch collects times and reports their median.
type watch []time.Duration

// time adds how long f takes.
func (w *watch) time(f func()) {
	start := time.Now()
	f()
	*w = append(*w, time.Since(start))
}

func (w watch) report(b *testing.B) {
	slices.Sort(w)
	b.ReportMetric(float64(w[len(w)/2].Nanoseconds())/1000, "median-us")
	b.ReportMetric(0, "ns/op") // the mean says nothing here
}

// median runs f under b and reports the median of its times.
func median(b *testing.B, f func()) {
	var w watch
	for b.Loop() {
		w.time(f)
	}
	w.report(b)
}

func BenchmarkOverlay(b *testing.B) {
	for name, byName := range map[string]bool{"descriptors": false, "names": true} {
		b.Run(name, func(b *testing.B) {
			mount.ForceByName(b, byName)
			r := newRig(b)
			users := r.users(b)
			defer users.Close()
			var w watch
			for b.Loop() {
				spec := mount.OverlaySpec{Map: testMap, Users: users, Disk: r.mountDisk(b)}
				for digest, image := range map[string]string{"sha256:1base": r.base, "sha256:2top": r.top} {
					tree, err := r.layers.Get(context.Background(), digest, image)
					must(b, err)
					spec.Lowers = append(spec.Lowers, tree)
				}
				var tree *mount.Tree
				w.time(func() {
					var err error
					tree, err = mount.Overlay(context.Background(), spec)
					must(b, err)
				})
				tree.Close()
				spec.Disk.Close()
				for _, lower := range spec.Lowers {
					lower.Close()
				}
			}
			w.report(b)
		})
	}
}

func BenchmarkLayersGet(b *testing.B) {
	r := newRig(b)
	var w watch
	for b.Loop() {
		var tree *mount.Tree
		w.time(func() {
			var err error
			tree, err = r.layers.Get(context.Background(), "sha256:1base", r.base)
			must(b, err)
		})
		tree.Close()
	}
	w.report(b)
}

func BenchmarkBind(b *testing.B) {
	r := newRig(b)
	users := r.users(b)
	defer users.Close()
	dir := b.TempDir()
	var w watch
	for b.Loop() {
		var tree *mount.Tree
		w.time(func() {
			var err error
			tree, err = mount.Bind(context.Background(), dir, users, true)
			must(b, err)
		})
		tree.Close()
	}
	w.report(b)
}

func BenchmarkIDMapsGet(b *testing.B) {
	for name, step := range map[string]uint32{"kept": 0, "new": mount.IDs} {
		b.Run(name, func(b *testing.B) {
			newRig(b)
			var maps mount.IDMaps
			defer maps.Close()
			at := mount.IDMap{Base: mount.IDs}
			median(b, func() {
				users, err := maps.Get(context.Background(), at)
				must(b, err)
				users.Close()
				if at.Base += step; at.Base > 1<<31 {
					at.Base = mount.IDs
				}
			})
		})
	}
}
