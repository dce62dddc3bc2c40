package machine_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual/virtualtest"
	"github.com/strata-project/strata/internal/unit"
)

// memoryInside is what the kernel inside counts.
func memoryInside(t *testing.T, live stratum.Live) unit.Size {
	t.Helper()
	text := inside(t, live, "/bin/sh", "-c", "while read name kib unit; do [ $name != MemTotal: ] || echo $kib; done </proc/meminfo")
	kib, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatalf("/proc/meminfo: %q", text)
	}
	return unit.Size(kib * unit.KiB)
}

func TestMemoryIsPluggedIn(t *testing.T) {
	r := virtualtest.New(t, "linux-image-amd64")
	d := newDriver(t, r)
	p := r.Plan(t)
	p.Resources = api.Resources{Memory: 128 * unit.MiB}
	p.Hardware.MemoryMax = 600 * unit.MiB
	p.Main = stratum.Process{Env: []string{"PATH=/bin"}, Args: []string{"/bin/sleep", "1000"}}
	live, err := d.Start(t.Context(), p, stratum.StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // the test's is over
		if err := live.Kill(ctx); err != nil {
			t.Error(err)
		}
		if e, err := live.Wait(ctx); err != nil || e.Crash != "" {
			t.Errorf("it ended with %+v, %v", e, err)
		}
		if _, err := d.Clean(ctx, p.ID); err != nil {
			t.Error(err)
		}
	})
	set := func(memory unit.Size) error {
		asked := p.Resources
		asked.Memory = memory
		began := time.Now()
		err := live.(stratum.Limiter).SetLimits(t.Context(), asked)
		if err == nil {
			p.Resources = asked
			t.Logf("came to %s in %v", memory, time.Since(began).Round(time.Millisecond))
		}
		return err
	}
	has := func(when string, whole unit.Size) {
		t.Helper()
		boot := live.(stratum.Booter).Boot()
		if boot.Memory != whole || boot.MostMemory != 768*unit.MiB {
			t.Errorf("%s: the machine says that it has %s and room for %s", when, boot.Memory, boot.MostMemory)
		}
		// Its own code, its lists of pages, and what the balloon has are not counted.
		if n := memoryInside(t, live); n > whole || n < whole-180*unit.MiB {
			t.Errorf("%s: the kernel inside counts %s of %s", when, n, whole)
		}
	}
	has("as built", 256*unit.MiB)
	if err := set(700 * unit.MiB); !fault.Is(err, fault.Conflict) || fault.All(err)[0].Field != "resources.memory" || !strings.Contains(err.Error(), "room for 768M") {
		t.Errorf("more than there is room for: %v", err)
	}
	if err := set(256 * unit.MiB); err != nil {
		t.Fatal(err)
	}
	has("grown", 384*unit.MiB)
	if err := set(600 * unit.MiB); err != nil {
		t.Fatal(err)
	}
	has("grown again", 768*unit.MiB)
	// It can be used: more than the machine was built with is written and read.
	if got := inside(t, live, "/bin/sh", "-c", "head -c 300000000 /dev/zero | tail -c 300000000 | wc -c"); got != "300000000" {
		t.Errorf("in memory that was plugged in: %q", got)
	}

	if err := set(128 * unit.MiB); err != nil {
		t.Errorf("with a lower limit: %v", err)
	}
	var have struct{ Actual int64 }
	for end := time.Now().Add(2 * time.Minute); have.Actual != int64(128*unit.MiB+api.OwnShare); time.Sleep(200 * time.Millisecond) {
		if err := live.(interface {
			Execute(ctx context.Context, command string, args, result any, files ...*os.File) error
		}).Execute(t.Context(), "query-balloon", nil, &have); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatalf("the balloon leaves %d bytes", have.Actual)
		}
	}
	if live, err = newDriver(t, r).Adopt(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if boot := live.(stratum.Booter).Boot(); boot.Memory != 768*unit.MiB {
		t.Errorf("adopted: the machine says that it has %s", boot.Memory)
	}
	if err := live.(stratum.Suspender).Suspend(t.Context(), filepath.Join(t.TempDir(), "suspended")); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "512M of memory were plugged in") {
		t.Errorf("suspended: %v", err)
	}
}
