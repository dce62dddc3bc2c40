package price

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
)

func TestSamplesAndRatios(t *testing.T) {
	for name, c := range map[string]struct {
		inside, host []float64
		more         bool
		median       float64
		times        float64
	}{
		"one pair":                              {[]float64{20}, []float64{10}, false, 20, 2},
		"more is better: half is twice as dear": {[]float64{5}, []float64{10}, true, 5, 2},
		"the pairs' ratios, not the medians'":   {[]float64{10, 40, 100}, []float64{10, 10, 100}, false, 40, 1},
		"an even number":                        {[]float64{4, 1, 3, 2}, nil, false, 2.5, 0},
		"what has no partner has no ratio":      {[]float64{1, 9}, []float64{1}, false, 5, 1},
		"nothing on the host":                   {[]float64{7}, nil, false, 7, 0},
		"a host of zero is no divisor":          {[]float64{7}, []float64{0}, false, 7, 0},
	} {
		s := sample(c.inside)
		if s.Median != c.median || s.Count != len(c.inside) || s.Least > s.Median || s.Most < s.Median {
			t.Errorf("%s: sample %+v, want the median %v", name, s, c.median)
		}
		if got := times(c.inside, c.host, c.more); math.Abs(got-c.times) > 1e-9 {
			t.Errorf("%s: times %v, want %v", name, got, c.times)
		}
	}
	if sample(nil) != nil {
		t.Error("a sample of nothing")
	}
}

func TestWhatIsSaidInsideIsHostile(t *testing.T) {
	known := func(name string) bool { return name == "cpu" || name == "syscall" }
	for said, ok := range map[string]bool{
		"": true, "cpu 1.5\n": true, "cpu 1\nsyscall 2\n": true,
		"cpu 1\ncpu 2\n": false, "port 1\n": false, "cpu\n": false, "cpu NaN\n": false, "cpu Inf\n": false, "cpu -1\n": false, "cpu 0\n": false, "cpu 1 2\n": false,
		"cpu 1e999\n": false, "\x00\n": false,
	} {
		if _, err := parse(strings.NewReader(said), known); (err == nil) != ok {
			t.Errorf("%q: %v, want it taken: %v", said, err, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("cpu 1\n")
	f.Add("cpu 1\nsyscall 2e3\n")
	f.Fuzz(func(t *testing.T, said string) {
		got, err := parse(strings.NewReader(said), func(name string) bool { return name == "cpu" })
		for name, v := range got {
			if err != nil || name != "cpu" || !(v > 0) || math.IsInf(v, 0) {
				t.Errorf("%q gives %v, %v", said, got, err)
			}
		}
	})
}

var host = api.PriceHost{Kernel: "6.1", CPU: "a", CPUs: 2, QEMU: "7.2", Accelerator: "tcg", Version: "v1"}

func TestWhatMakesAPriceStale(t *testing.T) {
	change := func(f func(*api.PriceHost)) api.PriceHost {
		h := host
		f(&h)
		return h
	}
	for name, c := range map[string]struct {
		now         api.PriceHost
		zone, guest string
	}{
		"nothing changed":           {host, "", ""},
		"another kernel":            {change(func(h *api.PriceHost) { h.Kernel = "6.2" }), "the kernel was 6.1 and is 6.2", "the kernel was 6.1 and is 6.2"},
		"another processor":         {change(func(h *api.PriceHost) { h.CPU = "b" }), "the processor was a and is b", "the processor was a and is b"},
		"more processors":           {change(func(h *api.PriceHost) { h.CPUs = 4 }), "the number of processors was 2 and is 4", "the number of processors was 2 and is 4"},
		"another strata":            {change(func(h *api.PriceHost) { h.Version = "v2" }), "strata was v1 and is v2", "strata was v1 and is v2"},
		"QEMU is no zone's concern": {change(func(h *api.PriceHost) { h.QEMU = "8" }), "", "QEMU was 7.2 and is 8"},
		"QEMU is gone":              {change(func(h *api.PriceHost) { h.QEMU, h.Accelerator = "", "" }), "", "QEMU was 7.2 and is none; the accelerator was tcg and is none"},
		"KVM came":                  {change(func(h *api.PriceHost) { h.Accelerator = "kvm" }), "", "the accelerator was tcg and is kvm"},
	} {
		for at, want := range map[string]string{"zone": c.zone, "guest": c.guest, "machine": c.guest} {
			if got := strings.Join(Stale(at, host, c.now), "; "); got != want {
				t.Errorf("%s, %s: %q, want %q", name, at, got, want)
			}
		}
	}
}

func TestALineSaysWhatWasMeasuredAndNothingElse(t *testing.T) {
	one := func(v float64) *api.PriceSample { return &api.PriceSample{Median: v, Least: v, Most: v, Count: 1} }
	at := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	full := []api.PriceFigure{
		{Name: Start, Unit: "ms", Inside: one(1200)}, {Name: Memory, Unit: "MiB", Inside: one(250)},
		{Name: "cpu", Unit: "M/s", Inside: one(9), Host: one(100), Times: 11.1}, {Name: "syscall", Unit: "ns", Why: "no"},
	}
	warm := append([]api.PriceFigure{{Name: StartWarm, Unit: "ms", Inside: one(156)}}, full...)
	newer := host
	newer.Kernel = "6.2"
	for name, c := range map[string]struct {
		p    api.StratumPrice
		now  api.PriceHost
		want string
	}{
		"never measured":    {api.StratumPrice{Stratum: "zone"}, host, "not measured"},
		"a damaged one":     {api.StratumPrice{Stratum: "zone", Measured: at, Figures: full}, host, "not measured"},
		"without a figure":  {api.StratumPrice{Stratum: "zone", Measured: at, Host: &host}, host, "not measured"},
		"a guest by TCG":    {api.StratumPrice{Stratum: "guest", Measured: at, Host: &host, Figures: full}, host, "start 1.20 s, idle 250 MiB, cpu ×11.1 (measured 2026-11-21 by tcg)"},
		"with a warm start": {api.StratumPrice{Stratum: "guest", Measured: at, Host: &host, Figures: warm}, host, "start 156 ms, cold 1.20 s, idle 250 MiB, cpu ×11.1 (measured 2026-11-21 by tcg)"},
		"a stale one":       {api.StratumPrice{Stratum: "zone", Measured: at, Host: &host, Figures: full[:1]}, newer, "start 1.20 s (measured 2026-11-21, stale: the kernel was 6.1 and is 6.2)"},
	} {
		if got := Look(c.p, c.now, at.Add(time.Hour)); got.Line != c.want {
			t.Errorf("%s: %q, want %q", name, got.Line, c.want)
		} else if got.Line != NotMeasured && got.Age != 3600 {
			t.Errorf("%s: age %d", name, got.Age)
		}
	}
}

func TestABookKeepsTheLastOfEachStratum(t *testing.T) {
	path := filepath.Join(t.TempDir(), "price.json")
	b := Open(path)
	if all, err := b.All(); err != nil || len(all) != 0 {
		t.Fatalf("at first: %v, %v", all, err)
	}
	for _, p := range []api.StratumPrice{{Stratum: "zone", Template: "old"}, {Stratum: "guest", Template: "g"}, {Stratum: "zone", Template: "new", Host: &host}} {
		if err := b.Keep(p); err != nil {
			t.Fatal(err)
		}
	}
	for name, book := range map[string]*Book{"the same": b, "a later one": Open(path)} {
		all, err := book.All()
		if err != nil || len(all) != 2 || all["zone"].Template != "new" || all["guest"].Template != "g" || !reflect.DeepEqual(*all["zone"].Host, host) {
			t.Errorf("%s: %v, %v", name, all, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/.*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	for name, text := range map[string]string{"damaged": "{", "of a newer form": `{"form":99,"strata":{"zone":{}}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b := Open(path)
		if all, err := b.All(); err == nil || len(all) != 0 {
			t.Errorf("%s: %v, %v", name, all, err)
		}
		if err := b.Keep(api.StratumPrice{Stratum: "zone"}); err != nil {
			t.Errorf("%s: keep: %v", name, err)
		}
	}
}

func TestMemoryIsThatOfAProcessAndAllBelow(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pid, p := range map[string]struct{ stat, pss string }{
		"10": {"10 (strata-keeper) S 1 10", "Rss: 900 kB\nPss:   100 kB\nPss_Dirty: 7 kB\n"},
		"11": {"11 (a) b) 99 (c) S 10 11", "Pss: 20 kB\n"}, // a name that means to look like fields
		"12": {"12 (sh) S 11 12", "Pss: 3 kB\n"},
		"20": {"20 (other) S 1 20", "Pss: 5000 kB\n"},
	} {
		write("proc/"+pid+"/stat", p.stat)
		write("proc/"+pid+"/smaps_rollup", p.pss)
	}
	held, err := Weigh(root, 10, 11, nil)
	if err != nil || held != (Held{Processes: 123 << 10, Cache: -1}) {
		t.Errorf("%+v, %v", held, err)
	}
	write("proc/11/cgroup", "5:memory:/strata/x/payload\n0::/\n")
	write("sys/fs/cgroup/memory/strata/x/memory.kmem.usage_in_bytes", "4096\n")
	write("sys/fs/cgroup/memory/strata/x/memory.stat", "cache 1\ntotal_cache 9000\ntotal_shmem 1000\n")
	if held, _ := Weigh(root, 10, 11, nil); held.Kernel != 4096 || held.Cache != 8000 {
		t.Errorf("v1: %+v", held)
	}
	write("proc/11/cgroup", "0::/strata/y/payload/init\n")
	write("sys/fs/cgroup/strata/y/memory.stat", "anon 1\nfile 5000\nkernel_stack 3\nkernel 8192\nshmem 5000\n")
	if held, _ := Weigh(root, 10, 11, nil); held.Kernel != 8192 || held.Cache != 0 {
		t.Errorf("v2: %+v", held)
	}
	if _, err := Weigh(root, 4711, 11, nil); err == nil {
		t.Error("memory of what is not there")
	}
}
