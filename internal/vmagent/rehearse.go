package vmagent

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	agentspec "github.com/strata-project/strata/internal/agent/spec"

	"github.com/strata-project/strata/internal/agent/root"
	wire "github.com/strata-project/strata/internal/vmagent/port"
	"github.com/strata-project/strata/internal/vmagent/spec"
	"github.com/strata-project/strata/internal/vmagent/streams"
)

// rehearsalName is what the process is called that rehearses.
const rehearsalName = "strata-agent-rehearsal"

// The rehearsal's descriptors.
const (
	rehearsalDev = 3 + iota
	rehearsalRun
)

// awayPatience bounds how long the kernel may take to let go of a rehearsal's disks.
const awayPatience = 20 * time.Second

// rehearse has all that r asks for done by a process with mounts and a host name of its
// own, and undone. The kernel and this program have then run what a start runs, which
// is what takes most of a start where the processor is emulated.
func (a *agent) rehearse(r *spec.Run, text []byte) error {
	if r.System || r.Idle || r.Network == nil || len(r.Volumes) > 0 {
		return root.Fail(root.Invalid, "rehearsal", "only an app with a network and no volumes is rehearsed")
	}
	fd, err := unix.MemfdCreate("run", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, text, 0); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	ended := make(chan unix.WaitStatus, 1)
	err = a.reap.start(func() (int, error) {
		return syscall.ForkExec("/proc/self/exe", []string{rehearsalName}, &syscall.ProcAttr{
			Files: []uintptr{uintptr(null), uintptr(null), uintptr(null), rehearsalDev: uintptr(a.dev), rehearsalRun: uintptr(fd)},
			Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS},
		})
	}, func(s unix.WaitStatus) { ended <- s })
	if err != nil {
		return root.Wrap(err, "start the rehearsal")
	}
	if s := <-ended; !s.Exited() || s.ExitStatus() != 0 {
		return root.Fail(root.Internal, "", "the rehearsal of a start failed; the console says why")
	}
	if err := unix.Rmdir(groupPlace + rehearsalGroup); err != nil {
		return root.Wrap(err, "remove the rehearsal's control group")
	}
	for _, device := range []string{r.Template, r.Disk} {
		if err := away(device); err != nil {
			return root.Wrap(err, "take "+device+" back from the rehearsal")
		}
	}
	return nil
}

// away waits until nobody has a block device mounted: mounts go a moment after the
// last process that has seen them.
func away(device string) error {
	for end := time.Now().Add(awayPatience); ; time.Sleep(2 * time.Millisecond) {
		// Source: open(2), O_EXCL without O_CREAT. The last one to close drops what the
		// kernel has kept of the device.
		fd, err := unix.Open(device, unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
		if err == nil {
			return unix.Close(fd)
		}
		if err != unix.EBUSY || time.Now().After(end) {
			return err
		}
	}
}

// rehearsal is the process that rehearses; it returns its exit status.
func rehearsal() int {
	unix.CloseOnExec(rehearsalDev)
	a := newAgent()
	a.dev = rehearsalDev
	text, err := io.ReadAll(os.NewFile(rehearsalRun, "run"))
	if err != nil {
		return 1
	}
	log, err := unix.Open("/dev/kmsg", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 1
	}
	go func() {
		if err := a.perform(text); err != nil {
			_, _ = unix.Write(log, []byte("<2>strata-agent: rehearsal: "+root.Words(err)+"\n"))
			os.Exit(1)
		}
		os.Exit(0)
	}()
	a.loop()
	return 0
}

// perform does all that a start does, waits for the end of the program, and takes back
// what is not the process's own.
func (a *agent) perform(text []byte) (err error) {
	r, err := agentspec.ReadRun(text)
	if err != nil {
		return root.Wrap(err, "read the specification")
	}
	before, err := hex.DecodeString(strings.ReplaceAll(readLine(cardPlace+"/address"), ":", ""))
	if err != nil {
		return root.Wrap(err, "read the card's address")
	}
	defer func() {
		if e := disconnect(r.Network, before); err == nil {
			err = root.Wrap(e, "take the network back")
		}
	}()
	a.do(func() {
		if err = a.openRandom(); err != nil {
			return
		}
		if a.group, err = newGroup(rehearsalGroup); err != nil {
			return
		}
		if a.part, err = root.Prepare(layout(&spec.Run{}), partPlace); err != nil {
			return
		}
		err = a.put(r)
	})
	if err != nil {
		return err
	}
	return a.play(r)
}

// play runs the program with a host of its own, as app does.
func (a *agent) play(r *spec.Run) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	ports := make(chan int, 1)
	ports <- pair[1]
	s := streams.New(func() (io.ReadWriteCloser, error) {
		select {
		case fd := <-ports:
			return newPort(fd, "rehearsal")
		default:
			return nil, errNoPort
		}
	}, a)
	go s.Serve(context.Background())
	heard := make(chan error, 1)
	go func() { heard <- audience(os.NewFile(uintptr(pair[0]), "audience")) }()
	if err := s.Start(r.Main); err != nil {
		return err
	}
	<-a.over
	settled := a.settle()
	if err := <-heard; err != nil {
		return err
	}
	<-s.Taken()
	if !settled() {
		return errNotSettled
	}
	return a.thaw() // or it could never be unmounted
}

var (
	errNotSettled = errors.New("the disk does not become whole")
	errNoProgram  = errors.New("the program did not end well")
)

// audience is the host that a rehearsal is for. It returns once it knows of the program's end.
func audience(f *os.File) error {
	if _, err := f.Write(wire.Append(nil, wire.Hello, 0, wire.HelloPayload(1))); err != nil {
		return err
	}
	b := make([]byte, wire.MaxPayload)
	if _, err := io.ReadFull(f, b[:wire.HeaderSize+wire.HelloSize]); err != nil {
		return err
	}
	for {
		if _, err := io.ReadFull(f, b[:wire.HeaderSize]); err != nil {
			return err
		}
		h, err := wire.ParseHeader(b[:wire.HeaderSize])
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(f, b[:h.Length]); err != nil {
			return err
		}
		switch h.Type {
		case wire.Failed:
			return errNoProgram
		case wire.Exit:
			if b[0]|b[1]|b[2]|b[3] != 0 { // its wait status
				return errNoProgram
			}
			_, err := f.Write(wire.Append(nil, wire.Taken, 0, nil))
			return err
		}
	}
}
