package virtual

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// outcome is how an attempt goes: how far, and with what error.
type outcome struct {
	begun, met bool
	err        error
}

// verdicts is a judge that only counts what it was told of failures.
type verdicts struct{ given []error }

func (v *verdicts) Confirm(_ qemu.Program, err error) accel.Verdict {
	v.given = append(v.given, err)
	return accel.Verdict{Accelerator: qemu.TCG, Reason: accel.Unbooted(err)}
}

// launched is a launch by an accelerator.
func launched(by string) *Launch {
	l := &Launch{}
	l.Notes.Boot.Accelerator = by
	return l
}

func TestAGuestThatKVMDoesNotBootIsBootedByTCG(t *testing.T) {
	var (
		silent  = fault.Busyf("the agent inside did not answer in time")
		died    = fault.Unablef("QEMU ended before the agent was there")
		noTimer = fault.Unablef("the machine ended; its console's last lines: %s (APIC frequency too slow)", spec.NoTimer)
		command = fault.Missingf("there is no such program").At("command")
	)
	for sentence, c := range map[string]struct {
		proven   bool
		with     string
		attempts []outcome
		err      error
		blamed   bool
	}{
		"one that comes up stays with KVM":               {false, qemu.KVM, []outcome{{true, true, nil}}, nil, false},
		"an agent that does not answer":                  {false, qemu.KVM, []outcome{{true, false, silent}, {true, true, nil}}, nil, true},
		"a QEMU that dies":                               {false, qemu.KVM, []outcome{{true, false, died}, {true, true, nil}}, nil, true},
		"TCG boots it, and then its program is wrong":    {false, qemu.KVM, []outcome{{true, false, died}, {true, true, command}}, command, true},
		"what TCG does not boot either is not KVM's":     {false, qemu.KVM, []outcome{{true, false, died}, {true, false, silent}}, silent, false},
		"an agent that was met clears KVM":               {false, qemu.KVM, []outcome{{true, true, silent}}, silent, false},
		"what fails before QEMU runs is not KVM's":       {false, qemu.KVM, []outcome{{false, false, died}}, died, false},
		"a KVM that has run a guest is not given up":     {true, qemu.KVM, []outcome{{true, false, died}}, died, false},
		"one that hangs where others ran is tried again": {true, qemu.KVM, []outcome{{true, false, silent}, {true, true, nil}}, nil, false},
		"one that hangs again is given up":               {true, qemu.KVM, []outcome{{true, false, silent}, {true, false, silent}}, silent, false},
		"TCG has no other to fall back to":               {false, qemu.TCG, []outcome{{true, false, died}}, died, false},
		"one that hangs by TCG is tried again":           {false, qemu.TCG, []outcome{{true, false, silent}, {true, true, nil}}, nil, false},
		"one without a timer is tried again":             {false, qemu.TCG, []outcome{{true, false, noTimer}, {true, true, nil}}, nil, false},
		"who says so once its agent was met is not":      {false, qemu.TCG, []outcome{{true, true, noTimer}}, noTimer, false},
		"one that hangs by TCG again is given up":        {false, qemu.TCG, []outcome{{true, false, silent}, {true, false, silent}}, silent, false},
		"what was asked for wrongly is not done again":   {false, qemu.KVM, []outcome{{true, false, command}}, command, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			l := launched(c.with)
			l.Proven = c.proven
			var by []string
			var j verdicts
			_, err := twice(t.Context(), &j, l, attempts{
				now: func(context.Context) (*Live, error) {
					if len(by) == len(c.attempts) {
						t.Fatalf("it was tried once more, after %v", by)
					}
					o := c.attempts[len(by)]
					by = append(by, l.Notes.Boot.Accelerator)
					l.Begun, l.Met = o.begun, o.met
					return nil, o.err
				},
				again: func(_ context.Context, by string) error {
					want := c.with
					if !c.proven {
						want = qemu.TCG
					}
					if by != want {
						t.Errorf("it is prepared for %s once more, want %s", by, want)
					}
					*l = *launched(c.with)
					l.Proven = c.proven
					return nil
				},
			})
			if len(by) == 2 && !l.Last {
				t.Error("the second attempt does not know that it is the last")
			}
			if err != c.err || len(by) != len(c.attempts) {
				t.Errorf("tried by %v, the last says %v; want %v", by, err, c.err)
			}
			if len(by) == 2 && (c.proven || c.with == qemu.TCG) && by[1] != c.with {
				t.Errorf("a %s that has run others was given up for %s", c.with, by[1])
			}
			if len(by) == 2 && !c.proven && c.with == qemu.KVM && (by[1] != qemu.TCG || l.Notes.Boot.Why != accel.Unbooted(c.attempts[0].err)) {
				t.Errorf("the second attempt was by %s, because of %s", by[1], l.Notes.Boot.Why)
			}
			if got := len(j.given) == 1 && j.given[0] == c.attempts[0].err; got != c.blamed || len(j.given) > 1 {
				t.Errorf("the judge was told %v", j.given)
			}
		})
	}
}

func TestWhatGoesOnFromASavedStateDoesSoOnce(t *testing.T) {
	for _, by := range []string{qemu.KVM, qemu.TCG} {
		l := launched(by)
		l.Proven, l.From = true, &Saved{}
		tries := 0
		_, err := twice(t.Context(), &verdicts{}, l, attempts{now: func(context.Context) (*Live, error) {
			tries++
			l.Begun = true
			return nil, fault.Busyf("the agent inside did not answer in time")
		}})
		if err == nil || tries != 1 {
			t.Errorf("by %s: %d tries, %v", by, tries, err)
		}
	}
}

func TestAStartThatWasGivenUpIsNotDoneAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := launched(qemu.KVM)
	n := 0
	_, err := twice(ctx, &verdicts{}, l, attempts{now: func(context.Context) (*Live, error) {
		n++
		l.Begun = true
		cancel()
		return nil, context.Canceled
	}})
	if !errors.Is(err, context.Canceled) || n != 1 {
		t.Errorf("%v after %d attempts", err, n)
	}
}

func TestABootHasTimeForAsLongAsItGoesOn(t *testing.T) {
	const stall = 400 * time.Millisecond
	var used atomic.Int64
	ctx, cancel := Patient(t.Context(), stall, func() (int64, error) { return used.Load(), nil })
	defer cancel()
	for begun := time.Now(); time.Since(begun) < 3*stall; time.Sleep(stall / 8) {
		used.Add(4096)
	}
	if ctx.Err() != nil {
		t.Fatal("it was given up while it went on")
	}
	<-ctx.Done()
}

func TestABootThatDoesNotGoOnIsGivenUp(t *testing.T) {
	for sentence, used := range map[string]func() (int64, error){
		"it uses the same all the time":    func() (int64, error) { return 1 << 20, nil },
		"what it uses cannot be found out": func() (int64, error) { return 0, errors.New("gone") },
		"it uses less and less":            func() func() (int64, error) { n := int64(1 << 20); return func() (int64, error) { n--; return n, nil } }(),
	} {
		t.Run(sentence, func(t *testing.T) {
			ctx, cancel := Patient(t.Context(), 50*time.Millisecond, used)
			defer cancel()
			<-ctx.Done()
		})
	}
}
