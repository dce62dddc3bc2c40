package virtual

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/unit"
)

// fakeBalloon is QEMU's monitor as far as a balloon goes, and a kernel behind it.
type fakeBalloon struct {
	none    bool      // there is no balloon
	actual  unit.Size //
	free    unit.Size // that the system has for programs, and gives
	silent  bool      // its driver does not answer
	least   unit.Size // it gives no more than down to that
	asked   []unit.Size
	polling int
}

func (f *fakeBalloon) Execute(_ context.Context, command string, args, result any, _ ...*os.File) error {
	if f.none {
		return fault.Unablef("QEMU does not do %s: %w", command, &qemu.Refused{Class: "DeviceNotActive", Desc: "No balloon device has been activated"})
	}
	answer := func(v any) error {
		b, _ := json.Marshal(v)
		return json.Unmarshal(b, result)
	}
	switch command {
	case "query-balloon":
		return answer(map[string]int64{"actual": int64(f.actual)})
	case "balloon":
		to := unit.Size(args.(map[string]int64)["value"])
		f.asked = append(f.asked, to)
		if !f.silent {
			f.actual = max(to, f.least)
		}
	case "qom-set":
		f.polling = args.(map[string]any)["value"].(int)
	case "qom-get":
		stats, last := map[string]uint64{"stat-available-memory": 1<<64 - 1}, int64(0)
		if !f.silent && f.polling > 0 {
			stats["stat-available-memory"], last = uint64(f.free), time.Now().Unix()
		}
		return answer(map[string]any{"stats": stats, "last-update": last})
	default:
		return errors.New("no such command: " + command)
	}
	return nil
}

func TestABalloonTakesWhatIsNotUsedAndNoMore(t *testing.T) {
	const whole = 512 * unit.MiB
	for name, c := range map[string]struct {
		balloon       fakeBalloon
		least, normal unit.Size
		low           unit.Size // how far it was asked to go down; 0: nothing was asked
	}{
		"an idle system keeps some spare memory":        {fakeBalloon{actual: whole, free: 300 * unit.MiB}, smallest, whole, whole - 300*unit.MiB + spareInside},
		"never below the floor":                         {fakeBalloon{actual: whole, free: 500 * unit.MiB}, smallest, whole, smallest},
		"never below the guarantee":                     {fakeBalloon{actual: whole, free: 300 * unit.MiB}, 400 * unit.MiB, whole, 400 * unit.MiB},
		"a system that uses all of it gives nothing":    {fakeBalloon{actual: whole, free: 20 * unit.MiB}, smallest, whole, 0},
		"one that was made smaller goes back to that":   {fakeBalloon{actual: 300 * unit.MiB, free: 100 * unit.MiB}, smallest, 300 * unit.MiB, 300*unit.MiB - 100*unit.MiB + spareInside},
		"one that gives less than it said is let go on": {fakeBalloon{actual: whole, free: 300 * unit.MiB, least: 400 * unit.MiB}, smallest, whole, whole - 300*unit.MiB + spareInside},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := c.balloon
			if err := (balloon{&f, whole}).squeeze(t.Context(), c.least, c.normal); err != nil {
				t.Fatal(err)
			}
			if c.low == 0 {
				if len(f.asked) != 0 {
					t.Errorf("it was asked for %v", f.asked)
				}
				return
			}
			if len(f.asked) != 2 || f.asked[0] != c.low || f.asked[1] != c.normal {
				t.Errorf("it was asked for %v, want %v and %v", f.asked, c.low, c.normal)
			}
			if f.actual != max(c.normal, f.least) || f.polling != 0 {
				t.Errorf("it has %v in the end, polled every %d s", f.actual, f.polling)
			}
		})
	}
}

func TestAMachineWithoutABalloonSaysSo(t *testing.T) {
	b := balloon{&fakeBalloon{none: true}, unit.GiB}
	if err := b.squeeze(t.Context(), smallest, unit.GiB); !errors.Is(err, errNoBalloon) {
		t.Error(err)
	}
	if _, err := b.set(t.Context(), smallest); !errors.Is(err, errNoBalloon) {
		t.Error(err)
	}
}

func TestABalloonThatMakesNoWayIsGivenUp(t *testing.T) {
	f := &fakeBalloon{actual: unit.GiB, silent: true}
	got, err := balloon{f, unit.GiB}.set(t.Context(), smallest)
	if err != nil || got != unit.GiB {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAMachineIsAsLargeAsItsLimitAndItsKernel(t *testing.T) {
	for name, c := range map[string]struct {
		r    api.Resources
		want unit.Size
	}{
		"without a limit it is whole":         {api.Resources{}, unit.GiB},
		"a limit, and the kernel's share":     {api.Resources{Memory: 300 * unit.MiB}, 396 * unit.MiB},
		"a small limit stays above the floor": {api.Resources{Memory: 10 * unit.MiB}, smallest},
		"a guarantee is kept":                 {api.Resources{Memory: 200 * unit.MiB, MemoryGuarantee: 200 * unit.MiB}, 296 * unit.MiB},
		"nothing is larger than it was built": {api.Resources{Memory: unit.GiB}, unit.GiB},
	} {
		if got := ballooned(c.r, unit.GiB); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
