package vmagent

import (
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/files"
	"github.com/strata-project/strata/internal/agent/gauge"
	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/control/answer"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// Run is the whole of cmd/strata-vmagent; it returns the exit status. The caller
// has locked the goroutine to the process's main thread.
func Run(args []string) int {
	switch {
	case len(args) > 0 && args[0] == companionName:
		return companion(args)
	case len(args) > 0 && args[0] == rehearsalName:
		return rehearsal()
	case len(args) == 2 && args[1] == installedName:
		return installed()
	case os.Getpid() == 1:
		boot()
	case len(args) == 3:
		conceal()
		if args[1] == gauge.Command {
			return gauge.Run(args[2])
		}
		if status, ok := files.Run(args[1], args[2]); ok {
			return status
		}
	}
	_, _ = unix.Write(2, []byte("strata-vmagent is run by strata, as the first program of a guest\n"))
	return 2
}

// agent is the one process of this package. What is above mu is written before
// anything else runs, or by the main thread only.
type agent struct {
	dev              int    // the folder of devices that the system started with
	random           int    // its random generator, opened before there is a run
	control, streams string // devices in it
	installed        bool   // into a system that is not strata's

	seen    bool         // the card was there
	raise   func() error // brings the card up; the first call does
	jobs    chan func()  // for the main thread
	answers *answer.Server
	reap    reaper
	rest    rest
	life
}

// boot is process 1: it does not return.
func boot() {
	a := newAgent()
	if err := a.begin(); err != nil {
		a.say(root.FailureOf(err).Message)
		a.off()
	}
	go a.serve()
	a.loop()
}

func newAgent() *agent {
	guard()
	a := &agent{dev: -1, random: -1, raise: sync.OnceValue(raise), jobs: make(chan func())}
	a.rest.dir = -1
	a.disk, a.state, a.over = -1, stateWaiting, make(chan struct{})
	a.answers = answer.NewServer(a.handle)
	return a
}

// conceal makes sure that no program can look into this process or take its descriptors.
func conceal() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // cannot fail with 0
}

// guard conceals a process that runs for as long as the system.
func guard() {
	conceal()
	unix.Umask(0o022)
	name := []byte("strata-agent\x00") // the kernel calls it by its file
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
	runtime.LockOSThread()
}

// begin mounts what the kernel tells of itself, loads what it needs, and does all that
// can be done before somebody says what to run.
func (a *agent) begin() (err error) {
	for _, m := range []struct {
		kind, place string
		flags       uintptr
	}{
		{"devtmpfs", "/dev", unix.MS_NOSUID}, {"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	} {
		if err := unix.Mkdir(m.place, 0o755); err != nil && err != unix.EEXIST {
			return root.Wrap(err, "make "+m.place)
		}
		if err := unix.Mount(m.kind, m.place, m.kind, m.flags, ""); err != nil && err != unix.EBUSY {
			return root.Wrap(err, "mount "+m.place)
		}
	}
	calm()
	if a.dev, err = unix.Open("/dev", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return root.Wrap(err, "open /dev")
	}
	for _, place := range []string{"/strata", templatePlace, diskPlace, groupPlace, partPlace} {
		if err := unix.Mkdir(place, 0o700); err != nil && err != unix.EEXIST {
			return root.Wrap(err, "make "+place)
		}
	}
	news, err := listen()
	if err != nil {
		return root.Wrap(err, "listen for devices")
	}
	if err := network(); err != nil {
		return err
	}
	a.faults = a.loadModules(a.greet)
	a.greet()
	if err := timed(); err != nil { // not before there is a console to say it on
		return err
	}
	if err := a.findPorts(news); err != nil {
		return err
	}
	return a.blame(a.ahead())
}

// timerPlace names the device by which the kernel is woken.
const timerPlace = "/sys/devices/system/clockevents/clockevent0/current_device"

// timed fails where the kernel has none. It measures the processor's timer for a tenth of a
// second as it boots, and goes on without it where the host held the machine up just then: its
// clock would stand still, and nothing that waits would ever go on, saved or not. Source: Linux,
// arch/x86/kernel/apic/apic.c, calibrate_APIC_clock.
func timed() error {
	if name := readAt(unix.AT_FDCWD, timerPlace); name != nil && strings.TrimSpace(string(name)) == "" {
		return root.Fail("busy", "", spec.NoTimer+" (APIC frequency too slow): start it again")
	}
	return nil
}

// network sets the kernel up, and brings the loopback up.
func network() error {
	if err := set(settings); err != nil {
		return err
	}
	if told(spec.Emulated) {
		_ = set(emulatedSettings) // it only costs more
	}
	return bringUp("lo")
}

// greet brings the card up as soon as it is there, since its link takes as long as the rest to come.
func (a *agent) greet() {
	if a.seen = present(); a.seen {
		_ = a.raise() // asked again by connect
	}
}

// serve answers hosts, one after the other, for as long as the system runs.
func (a *agent) serve() {
	for {
		p, err := a.open(a.control)
		if err != nil {
			a.say("the control port is lost: " + root.Words(err))
			return
		}
		a.mu.Lock()
		a.meeting = p
		a.mu.Unlock()
		_ = a.answers.Serve(p) // a host that goes is followed by another
		p.Close()
	}
}

// loop is the main thread, which a namespace of the environment's belongs to. Programs
// that have ended are reaped beside it: it need not be woken for each.
func (a *agent) loop() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	go func() {
		for range ended {
			a.reap.collect()
		}
	}()
	for job := range a.jobs {
		job()
	}
}

// do runs f on the main thread.
func (a *agent) do(f func()) {
	done := make(chan struct{})
	a.jobs <- func() { defer close(done); f() }
	<-done
}

// say writes to the kernel's log, and so to the console; the environment's own /dev does
// not lead there.
func (a *agent) say(text string) {
	dir, place := a.dev, "kmsg"
	if dir < 0 { // not opened yet
		dir, place = unix.AT_FDCWD, "/dev/kmsg"
	}
	fd, err := unix.Openat(dir, place, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte("<2>strata-agent: "+text+"\n"))
	unix.Close(fd)
}
