package agent

import (
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// spareThreads are those that PID 1 may come to need at once beside the ones that Go starts
// with: to wait in system calls and to hand signals on. A zone that has used up its limit of
// processes must not take its PID 1 along.
const spareThreads = 5

// initialize is PID 1 of a zone.
func initialize(k *keeper) int {
	r := newReaper(k)
	s, err := start(r)
	if err == nil {
		err = k.started(r.main)
	}
	if err != nil {
		k.settle(err)
		return 1 // and with it the main program, where that was started
	}
	if err := settle(s.Keep, r.filter, r.null); err != nil {
		say("strata-agent: " + err.Error() + "\n")
		return 1
	}
	return r.run()
}

// start builds the root and starts what is to run in it. With kind system it
// returns only if it failed.
func start(r *reaper) (*spec.Init, error) {
	k := r.k
	b, err := program.ReadAll(spec.FD, spec.MaxSize)
	if err != nil {
		return nil, wrap(err, "read the specification")
	}
	s, err := spec.ReadInit(b)
	if err != nil {
		return nil, err
	}
	if err := inside(k, s); err != nil {
		return nil, err
	}
	if r.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, wrap(err, "open /dev/null")
	}
	var img *program.Image
	if s.Main != nil {
		if img, err = stage(k, s); err != nil {
			return nil, err
		}
	}
	if !s.System {
		program.Reserve(spareThreads)
	}
	// Only now: all of this took place while the daemon connected the network.
	if err := k.wait(); err != nil {
		return nil, err
	}
	if s.System {
		return nil, replaceWith(k, img)
	}
	signal.Notify(r.signals, ownSignals...)
	if img == nil {
		signal.Notify(r.signals, usualSignals...)
		r.filter, err = program.Filter(s.Seccomp)
		return s, err
	}
	r.filter = img.Filter()
	r.main, err = launch(img, func() { signal.Notify(r.signals, usualSignals...) })
	return s, err
}

// inside makes the zone's inside, and moves there.
func inside(k *keeper, s *spec.Init) error {
	if err := root.Build(s); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return wrap(err, "set the hostname")
	}
	if s.Notify == "" {
		return nil
	}
	return wrap(notify(k, s.Notify), "listen for readiness")
}

// stage prepares the main program and its standard streams.
func stage(k *keeper, s *spec.Init) (*program.Image, error) {
	img, err := program.Prepare(s.Main)
	if err != nil {
		return nil, err
	}
	img.Session = !s.System // PID 1 has one already
	if !s.Main.TTY {
		program.GiveStreams(img.UID(), 0, 1, 2)
		return img, nil
	}
	t, err := program.OpenTerminal(s.Main, img.UID())
	if err != nil {
		return nil, err
	}
	if err := t.Console(); err != nil {
		return nil, err
	}
	if err := k.say(wire.Message{Type: wire.TTY}, t.Master); err != nil {
		return nil, wrap(err, "hand over the terminal")
	}
	unix.Close(t.Master)
	img.TTY = t.Slave
	return img, nil
}

// notify makes the socket on which the init says that it is up, and gives its
// receiving side to the keeper.
func notify(k *keeper, path string) error {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	mask := unix.Umask(0o077)
	err = unix.Bind(sock, &unix.SockaddrUnix{Name: path})
	unix.Umask(mask)
	if err != nil {
		return err
	}
	return k.say(wire.Message{Type: wire.Notify}, sock)
}

// launch forks the main program and waits until it is executed; it does
// meanwhile what can be done beside that.
func launch(img *program.Image, meanwhile func()) (pid int, err error) {
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(report[0])
	pid, err = img.Fork(report[1])
	unix.Close(report[1])
	if img.TTY >= 0 {
		unix.Close(img.TTY)
	}
	if err != nil {
		return 0, err
	}
	meanwhile()
	buf := make([]byte, program.ReportSize)
	var n int
	err = root.Again(func() (err error) {
		n, err = unix.Read(report[0], buf)
		return err
	})
	if err != nil {
		return 0, wrap(err, "wait for the main program")
	}
	return pid, img.Explain(buf[:n])
}

// replaceWith becomes the template's init. It returns only if that failed.
func replaceWith(k *keeper, img *program.Image) error {
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	text := spec.AppendMessage(nil, wire.Message{Type: wire.Started})
	if err := program.Herald(report[0], report[1], k.sock, text); err != nil {
		return err
	}
	unix.Close(report[0])
	err := img.Become()
	_, _ = unix.Write(report[1], []byte("x")) // the child must not take the end for success
	return err
}
