package agent

import (
	"encoding/binary"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// initialize is PID 1 of a zone.
func initialize(k *keeper) int {
	r := newReaper(k)
	s, err := start(r)
	if err == nil {
		err = k.say(wire.Message{Type: wire.Started}, -1)
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
	b, err := readAll(spec.FD, spec.MaxSize)
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
	var img *image
	if s.Main != nil {
		if img, err = stage(k, s); err != nil {
			return nil, err
		}
	}
	// Only now: all of this took place while the daemon connected the network.
	if err := k.wait(); err != nil {
		return nil, err
	}
	if s.System {
		return nil, replaceWith(k, s.Main, img)
	}
	signal.Notify(r.signals, ownSignals...)
	if img == nil {
		signal.Notify(r.signals, usualSignals...)
		r.filter, err = filterOf(s.Seccomp)
		return s, err
	}
	r.filter = img.filter
	r.main, err = launch(s.Main, img, func() { signal.Notify(r.signals, usualSignals...) })
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
func stage(k *keeper, s *spec.Init) (*image, error) {
	img, err := prepare(s.Main)
	if err != nil {
		return nil, err
	}
	img.session = !s.System // PID 1 has one already
	if !s.Main.TTY {
		giveStreams(int(img.uid))
		return img, nil
	}
	t, err := openTerminal(s.Main, int(img.uid))
	if err != nil {
		return nil, err
	}
	if err := t.console(); err != nil {
		return nil, err
	}
	if err := k.say(wire.Message{Type: wire.TTY}, t.master); err != nil {
		return nil, wrap(err, "hand over the terminal")
	}
	unix.Close(t.master)
	img.tty = t.slave
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
func launch(p *wire.Process, img *image, meanwhile func()) (pid int, err error) {
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	defer unix.Close(report[0])
	img.report = report[1]
	child, errno := fork(img)
	unix.Close(report[1])
	if img.tty >= 0 {
		unix.Close(img.tty)
	}
	if errno != 0 {
		return 0, wrap(errno, "start a process")
	}
	meanwhile()
	buf := make([]byte, 8)
	var n int
	err = root.Again(func() (err error) {
		n, err = unix.Read(report[0], buf)
		return err
	})
	if err != nil {
		return 0, wrap(err, "wait for the main program")
	}
	if n == len(buf) {
		return 0, explain(p, binary.NativeEndian.Uint32(buf), binary.NativeEndian.Uint32(buf[4:]))
	}
	return int(child), nil
}

// replaceWith becomes the template's init. It returns only if that failed.
func replaceWith(k *keeper, p *wire.Process, img *image) error {
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	text := spec.AppendMessage(nil, wire.Message{Type: wire.Started})
	if errno := herald(uintptr(report[0]), uintptr(report[1]), uintptr(k.sock), &text[0], uintptr(len(text))); errno != 0 {
		return wrap(errno, "start a process")
	}
	unix.Close(report[0])
	stage, errno := apply(img)
	_, _ = unix.Write(report[1], []byte("x")) // the child must not take the end for success
	return explain(p, stage, errno)
}
