package script

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// TestPrice has a strata of its own: the other sessions see one without a price.
func TestPrice(t *testing.T) {
	testscript.Run(t, sessions(bed.New(t), "testdata/price"))
}

// quickPromise is what `strata price --quick` takes at most, on an emulated processor too.
const quickPromise = time.Minute

// timeUp is why something was not measured that there was no time for.
const timeUp = "the time was up"

// unhad are figures that some hosts cannot tell, whatever time there is.
var unhad = []string{"kernel-memory", "cache", "cache-next", "cache-shared", "disk-random"}

// quietFor tells whether a stratum started in a time that leaves enough for all that is
// measured of it: others that take the processors leave less.
func quietFor(s api.StratumPrice) bool {
	for _, f := range s.Figures {
		if f.Name == "start" && f.Inside != nil {
			return f.Inside.Most < map[string]float64{"zone": 1000, "guest": 4000, "machine": 8000}[s.Stratum]
		}
	}
	return false
}

// missing are the figures that a price lacks, each with the reason.
func missing(s api.StratumPrice) (lacks []string, late bool) {
	if s.Measured.IsZero() {
		return []string{s.LeftOut}, strings.Contains(s.LeftOut, "share of the time")
	}
	for _, f := range s.Figures {
		if f.Inside == nil && (f.Why == timeUp || !slices.Contains(unhad, f.Name)) {
			lacks, late = append(lacks, f.Name+": "+f.Why), late || f.Why == timeUp
		}
	}
	return lacks, late
}

// pricer measures prices of a bed whose strata all have what they take.
type pricer struct {
	t *testing.T
	b *bed.Bed
}

// measure measures, and tells how long that took.
func (p pricer) measure(flags ...string) (at map[string]api.StratumPrice, took time.Duration) {
	p.t.Helper()
	bed.Patience, at = 3*bed.Patience, map[string]api.StratumPrice{} // without --quick it may take minutes
	defer func() { bed.Patience /= 3 }()
	begin := time.Now()
	text := p.b.Run(append([]string{"price", "--json"}, flags...)...)
	took = time.Since(begin)
	var price api.Price
	if err := json.Unmarshal([]byte(text), &price); err != nil {
		p.t.Fatal(err)
	}
	for _, s := range price.Strata {
		at[s.Stratum] = s
	}
	return at, took
}

// whole holds that nothing is missing of a stratum's price: of the quick one on a quiet host,
// and else of one for which there is more time.
func (p pricer) whole(s api.StratumPrice) (strict bool) {
	p.t.Helper()
	lacks, late := missing(s)
	strict = quietFor(s)
	if lacks != nil && late && !strict {
		p.t.Logf("%s: this host is too busy for a quick price, which lacks %v", s.Stratum, lacks)
		at, took := p.measure("--strata", s.Stratum)
		p.t.Logf("%s: measured alone, in %v", s.Stratum, took.Round(time.Second))
		lacks, _ = missing(at[s.Stratum])
	}
	if lacks != nil {
		p.t.Errorf("%s: these were not measured: %s", s.Stratum, strings.Join(lacks, "; "))
	}
	return strict
}

func TestPriceOfGuests(t *testing.T) {
	require.Machines(t)
	require.Tool(t, "qemu-system-x86_64")
	b := bed.New(t)
	bed.Kernel(t, b)
	b.Run("run", "--rm", "--stratum", "guest", "--cold", "busybox", "true") // makes what is made once
	p := pricer{t, b}
	if b.Try("kernel", "show", "machines").Status != 0 { // no other test left one
		at, _ := p.measure("--quick", "--strata", "machine")
		if m := at["machine"]; !m.Measured.IsZero() || !strings.Contains(m.LeftOut, "kernel") || m.Line != "not measured" {
			t.Errorf("a machine without a kernel: %+v", m)
		}
		if z := at["zone"]; !z.Measured.IsZero() || z.LeftOut != "" {
			t.Errorf("a zone that was not asked for: %+v", z)
		}
	}
	bed.MachineKernel(t, b)
	b.Run("run", "--rm", "--stratum", "machine", "busybox", "true")
	at, took := p.measure("--quick")
	quiet := true
	for _, name := range []string{"zone", "guest", "machine"} {
		s := at[name]
		t.Logf("%s: %d figures, in %.1f s; %s; left out: %q", name, len(s.Figures), s.Took, s.Line, s.LeftOut)
		quiet = p.whole(s) && quiet
	}
	t.Logf("all three took %v; the host was quiet: %v", took.Round(100*time.Millisecond), quiet)
	if took > quickPromise { // however busy the host: what there is no time for is left out
		t.Errorf("all three took %v; want less than %v", took, quickPromise)
	}
	if left := b.Run("ls", "-a", "-q"); strings.TrimSpace(left) != "" {
		t.Errorf("left: %s", left)
	}
	text := b.Run("price", "--kept", "--json")
	var kept api.Price
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		t.Fatal(err)
	}
	for _, s := range kept.Strata {
		plausible(t, s)
	}
	guest := kept.Strata[1]
	if plan := b.Run("plan", "--stratum", "guest", "busybox"); !strings.Contains(plan, "by "+guest.Host.Accelerator) {
		t.Errorf("plan: %s", plan)
	}
}

// plausible holds what each figure must be, whatever the host.
func plausible(t *testing.T, s api.StratumPrice) {
	t.Helper()
	if s.Host == nil || s.Host.QEMU == "" || s.Host.Accelerator != "tcg" && s.Host.Accelerator != "kvm" || s.Stale != nil {
		t.Fatalf("%s: %+v", s.Stratum, s)
	}
	for _, f := range s.Figures {
		if f.Inside == nil {
			continue
		}
		if f.Inside.Median < 0 || f.Inside.Median == 0 && !strings.HasPrefix(f.Name, "cache") || f.Host != nil && f.Times <= 0 {
			t.Errorf("%s: %s is %+v beside %+v, ×%v", s.Stratum, f.Name, f.Inside, f.Host, f.Times)
		}
		if f.Name == "memory" && s.Stratum != "zone" && f.Inside.Median < 32 { // QEMU was not counted, or no kernel in it
			t.Errorf("%s: %v MiB of memory", s.Stratum, f.Inside.Median)
		}
		if f.Name == "cache-shared" && f.Inside.Median == 0 { // its root was mounted
			t.Errorf("%s: nothing of its template was read", s.Stratum)
		}
	}
}
