package machine

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

// Foreign is one run of a foreign system: a Live of which all is refused that takes an
// agent of strata's inside. Where qemu-guest-agent is there, some of it goes by that.
type Foreign struct {
	*Live
	guest *guest // nil: it has no port for an agent
	log   *slog.Logger

	program string // strata's own agent, to be installed

	mu      sync.Mutex // guards what follows, a leaf
	trouble string
	unwatch context.CancelFunc // ends the look at what firmware says
}

func (d *Driver) foreign(v *virtual.Live) *Foreign {
	f := &Foreign{Live: d.live(v), log: d.Log, program: d.Program()}
	if path := v.GuestSocket(); path != "" {
		f.guest = newGuest(path)
		go f.listen(d.Life)
	}
	f.observe(time.Time{})
	return f
}

// observe has firmware looked at from now on, after a reset as well: what was wrong before
// is no longer.
func (f *Foreign) observe(since time.Time) {
	ctx, cancel := context.WithTimeout(f.d.Life, firmwarePatience)
	f.mu.Lock()
	if f.unwatch != nil {
		f.unwatch()
	}
	f.unwatch, f.trouble = cancel, ""
	f.mu.Unlock()
	go f.watch(ctx, since)
}

// noAgent is why something cannot be done in a foreign system.
func noAgent(what string) error {
	return fault.Unablef("%s: nothing of strata's is inside this system, which it does not know", what).
		Help("install qemu-guest-agent in it (with --os linux, windows or bsd strata speaks with that), or strata's own agent into a Linux (strata agent install); or use its screen (strata screen, type, vnc), its serial line (strata console), or its network; a template run with --stratum machine has strata's agent inside")
}

// Attach implements stratum.Live.
func (f *Foreign) Attach(context.Context, *os.File) error {
	return noAgent("it has no main program whose streams could be joined")
}

// Counts implements stratum.Counter: what the host counts is known, and no more.
func (f *Foreign) Counts(ctx context.Context) (stratum.Counts, error) {
	if f.settled() {
		return f.Live.Counts(ctx)
	}
	c, err := f.HostCounts()
	c.Memory, c.Swap, c.Processes = stratum.NotCounted, stratum.NotCounted, stratum.NotCounted
	c.Silent = noAgent("what is used inside is not known").Error()
	return c, err
}

// Space implements stratum.Spacer: of a foreign system's disks only it knows.
func (f *Foreign) Space() (s stratum.Space, ok bool) { return s, false }

// KernelLog implements stratum.KernelLogger.
func (f *Foreign) KernelLog(ctx context.Context) ([]byte, error) {
	if f.settled() {
		return f.Live.KernelLog(ctx)
	}
	return nil, noAgent("its kernel's log cannot be read")
}

// poweroff is what a template's init takes as a request to power off: RTMIN+4.
// Source: systemd(1), "Signals".
const poweroff = syscall.Signal(38)

// Signal implements stratum.Live: what asks for an end is the power button. No signal
// gets any further.
func (f *Foreign) Signal(ctx context.Context, sig syscall.Signal) error {
	switch sig {
	case syscall.SIGTERM, syscall.SIGPWR, poweroff:
		if f.askToEnd(ctx) {
			return nil
		}
		return fault.Wrap(f.Execute(ctx, "system_powerdown", nil, nil), "press the power button")
	}
	return fault.Unablef("a foreign system has a power button and takes no signals").At("signal").Help("TERM presses the button, KILL turns it off")
}

// flushPatience is how long QEMU has to write down a disk's tables before it is killed.
const flushPatience = 10 * time.Second

// Kill implements stratum.Live. A system that never asks its disk to keep what it wrote,
// as old ones do not, finds it there all the same: QEMU writes down what it has in memory
// of the disk when the machine stands still. One that does not answer is killed as it is.
// A system with a guest agent writes out what it has in memory itself first.
func (f *Foreign) Kill(ctx context.Context) error {
	frozen := f.freeze(ctx)
	bounded, cancel := context.WithTimeout(ctx, flushPatience)
	defer cancel()
	_ = f.Execute(bounded, "stop", nil, nil)
	err := f.Cut(ctx)
	if err != nil && frozen {
		// It stands still, and whoever lets it go on finds file systems to write to.
		err = errors.Join(err, f.Execute(ctx, "cont", nil, nil), f.guest.agent.Thaw(ctx))
	}
	return err
}

// Reset implements stratum.Resetter: the button on the front.
func (f *Foreign) Reset(ctx context.Context) (over bool, err error) {
	if err := f.Execute(ctx, "system_reset", nil, nil); err != nil {
		return false, err
	}
	f.observe(time.Now())
	return false, nil
}

// Suspend implements stratum.Suspender.
func (f *Foreign) Suspend(context.Context, string) error {
	return fault.Unablef("a foreign system cannot be suspended").Help("hold it still: strata pause; or let it hibernate by itself")
}

// Processes implements stratum.Lister.
func (f *Foreign) Processes(ctx context.Context) ([]stratum.Task, bool, error) {
	if f.settled() {
		return f.Live.Processes(ctx)
	}
	if f.Answers() != nil {
		return nil, false, fault.Unablef("opaque: qemu-guest-agent answers inside, and does not tell of processes")
	}
	return nil, false, noAgent("opaque: its processes cannot be seen")
}

// Reclaim implements stratum.Reclaimer.
func (f *Foreign) Reclaim(context.Context, api.Resources) (stratum.Reclaimed, error) {
	return stratum.Reclaimed{}, fault.Unablef("a foreign system's board has no balloon, so it gives no memory back").
		Help("stop it and give it less: strata set NAME memory=SIZE")
}

// Trouble implements stratum.Troubled.
func (f *Foreign) Trouble() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trouble
}

// How long firmware is listened to, and how often. OVMF tries the network last, which
// takes it long.
const (
	firmwarePatience = 3 * time.Minute
	firmwareLook     = 2 * time.Second
)

// nothingBoots is what firmware says that finds nothing to boot. Source: SeaBIOS,
// src/boot.c, and MdeModulePkg's BdsDxe.
var nothingBoots = regexp.MustCompile(`No bootable device|No bootable option or device was found`)

// shell is the last of what OVMF has to boot, where it waits for somebody to type: it ran
// nothing. Source: ShellPkg, Application/Shell/Shell.c, DoStartupScript.
var shell = regexp.MustCompile(`startup\.nsh or any other key to continue\.\s*Shell>$`)

// sequences are what a terminal acts on, as lines of a console are shown: with ? for what
// cannot be. Source: ECMA-48, 5.4.
var sequences = regexp.MustCompile(`\?\[[0-9;]*[A-Za-z]`)

// watch looks for what firmware says that finds nothing to boot, until the machine ends,
// or ctx, or it was found. SeaBIOS says so on a text screen. OVMF draws its letters
// itself, in a font that no other part of the machine has; what it says there it says on
// the serial line as well.
func (f *Foreign) watch(ctx context.Context, since time.Time) {
	tick := time.NewTicker(firmwareLook)
	defer tick.Stop()
	for {
		select {
		case <-f.Over():
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		screen, err := f.Screen().Text(ctx)
		line := strings.TrimSpace(sequences.ReplaceAllString(f.LastLines(since), ""))
		if !(err == nil && nothingBoots.MatchString(screen)) && !nothingBoots.MatchString(line) && !shell.MatchString(line) {
			continue
		}
		f.mu.Lock()
		if ctx.Err() == nil { // it was not reset meanwhile
			f.trouble = "its firmware finds nothing to boot"
		}
		f.mu.Unlock()
		return
	}
}

var (
	_ stratum.Hoster   = (*Driver)(nil)
	_ stratum.Troubled = (*Foreign)(nil)
	_ stratum.Screener = (*Foreign)(nil)
)
