package script

import (
	"encoding/json"
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

// quietFor tells whether a stratum started in a time that leaves enough for all that is
// measured of it: others that take the processors leave less.
func quietFor(s api.StratumPrice) bool {
	for _, f := range s.Figures {
		if f.Name == "start" && f.Inside != nil {
			return f.Inside.Most < map[string]float64{"guest": 4000, "machine": 8000}[s.Stratum]
		}
	}
	return false
}

func TestPriceOfGuests(t *testing.T) {
	require.Machines(t)
	require.Tool(t, "qemu-system-x86_64")
	b := bed.New(t)
	bed.Kernel(t, b)
	b.Run("run", "--rm", "--stratum", "guest", "--cold", "busybox", "true") // makes what is made once
	measure := func(flags ...string) map[string]api.StratumPrice {
		begin := time.Now()
		text := b.Run(append([]string{"price", "--quick", "--json"}, flags...)...)
		if took := time.Since(begin); took > quickPromise {
			t.Errorf("%v took %v", flags, took)
		}
		var p api.Price
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			t.Fatal(err)
		}
		at := map[string]api.StratumPrice{}
		for _, s := range p.Strata {
			at[s.Stratum] = s
		}
		return at
	}
	if b.Try("kernel", "show", "machines").Status != 0 { // no other test left one
		if m := measure("--strata", "machine")["machine"]; !m.Measured.IsZero() || !strings.Contains(m.LeftOut, "kernel") || m.Line != "not measured" {
			t.Errorf("a machine without a kernel: %+v", m)
		}
	}
	bed.MachineKernel(t, b)
	b.Run("run", "--rm", "--stratum", "machine", "busybox", "true")
	at := measure("--strata", "guest,machine")
	if z := at["zone"]; !z.Measured.IsZero() || z.LeftOut != "" {
		t.Errorf("a zone that was not asked for: %+v", z)
	}
	for name, s := range at {
		left, quiet := 0, quietFor(s)
		for _, f := range s.Figures {
			if f.Inside == nil {
				left++
				t.Logf("%s: %s was not measured: %s", name, f.Name, f.Why)
			}
			if f.Inside == nil && f.Why == "" {
				t.Errorf("%s: %s was not measured, and it does not say why", name, f.Name)
			}
			if f.Inside == nil && f.Why == timeUp && quiet {
				t.Errorf("%s: there was no time for %s", name, f.Name)
			}
		}
		t.Logf("%s: %d of %d figures were measured, in %.1f s; left out: %q", name, len(s.Figures)-left, len(s.Figures), s.Took, s.LeftOut)
	}
	if m := at["machine"]; m.Measured.IsZero() && !strings.Contains(m.LeftOut, "share of the time") {
		t.Errorf("a machine: %+v", m)
	}
	guest := at["guest"]
	if guest.Host == nil || guest.Host.QEMU == "" || guest.Host.Accelerator != "tcg" && guest.Host.Accelerator != "kvm" || guest.Stale != nil {
		t.Fatalf("a guest: %+v", guest)
	}
	for _, f := range guest.Figures {
		switch f.Name {
		case "start", "memory", "cpu", "syscall", "process", "disk-fsync", "network-out":
			if f.Inside == nil && f.Why == timeUp && !quietFor(guest) {
				t.Logf("this host is too busy for %s", f.Name)
			} else if f.Inside == nil || f.Inside.Median <= 0 {
				t.Errorf("%s was not measured: %s", f.Name, f.Why)
			} else if f.Host != nil && f.Times <= 0 {
				t.Errorf("%s: %+v beside %+v is ×%v", f.Name, f.Inside, f.Host, f.Times)
			}
		}
		if f.Name == "memory" && f.Inside != nil && f.Inside.Median < 32 {
			t.Errorf("a guest with its own kernel holds %v MiB", f.Inside.Median) // QEMU was not counted
		}
	}
	if plan := b.Run("plan", "--stratum", "guest", "busybox"); !strings.Contains(plan, "by "+guest.Host.Accelerator) {
		t.Errorf("plan: %s", plan)
	}
	if left := b.Run("ls", "-a", "-q"); strings.TrimSpace(left) != "" {
		t.Errorf("left: %s", left)
	}
}
