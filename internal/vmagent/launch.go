package vmagent

import (
	"context"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/spec"
	"github.com/strata-project/strata/internal/vmagent/streams"
)

// takenPatience bounds how long the host may take to fetch the rest of the main
// program's output and how it ended: as long as its reader may pause.
const takenPatience = 5 * time.Minute

// app starts what an app runs. The host hears of it on the streams port.
func (a *agent) app(r *spec.Run) error {
	s := a.stream()
	if r.Idle {
		a.begun.Store(true) // no program that the host asks for is the main one
		s.Idle(&nobody{ended: make(chan unix.WaitStatus, 1), over: a.over})
		go a.last(s, nil)
		go a.loadRest()
		return nil
	}
	a.console = r.Main.TTY
	err := s.Start(r.Main)
	go a.last(s, err)
	time.AfterFunc(laterPause, a.loadRest)
	return err
}

// stream begins to serve the streams port.
func (a *agent) stream() *streams.Server {
	s := streams.New(func() (io.ReadWriteCloser, error) { return a.open(a.streams) }, a)
	go s.Serve(context.Background())
	return s
}

// last waits for the end of the main program and switches the machine off.
func (a *agent) last(s *streams.Server, failed error) {
	if failed == nil {
		<-a.over
	}
	settled := a.settle()
	select {
	case <-s.Taken():
	case <-time.After(takenPatience):
	}
	a.quit.Do(func() {
		if settled() {
			s.Over()
		}
		reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	})
}

// Start implements streams.Starter. The first program of an app is the main one.
func (a *agent) Start(img *program.Image) (streams.Child, *program.Report, error) {
	main := a.begun.CompareAndSwap(false, true)
	if main && a.console {
		if err := (program.Terminal{Master: -1, Slave: img.TTY}).Console(); err != nil {
			return nil, nil, err
		}
	}
	if !a.installed {
		img.Birth.Cgroup, img.Birth.Namespaces = a.group.exec, []int{a.group.ns}
	}
	img.Birth.Expendable = os.Getpid() != 1
	c := &child{a: a, ended: make(chan unix.WaitStatus, 1), kills: a.group.kills()}
	var report *program.Report
	start := func() error {
		return a.reap.start(func() (pid int, err error) {
			pid, report, err = img.Start()
			c.pid = pid
			return pid, err
		}, func(s unix.WaitStatus) {
			c.ended <- s
			if main {
				close(a.over)
			}
		})
	}
	// The programs of an environment have the same capabilities, so what the first must
	// not have is lost to the threads that start them; the main one stays whole.
	img.Birth.Narrow = !a.installed
	err := start()
	if err == program.ErrNarrow {
		img.Birth.Narrow = false
		a.do(func() { err = start() })
	}
	if err != nil {
		return nil, nil, err
	}
	return c, report, nil
}

// child implements streams.Child.
type child struct {
	a     *agent
	pid   int
	ended chan unix.WaitStatus
	kills int64 // for want of memory, before it started
}

func (c *child) PID() int { return c.pid }

func (c *child) Ended() <-chan unix.WaitStatus { return c.ended }

func (c *child) Signal(sig unix.Signal) error { return c.a.reap.kill(c.pid, sig) }

func (c *child) OutOfMemory() bool { return c.a.group.kills() > c.kills }

// nobody is the main program of an idle system: asked to end, it has ended.
type nobody struct {
	once  sync.Once
	ended chan unix.WaitStatus
	over  chan struct{}
}

func (n *nobody) PID() int { return os.Getpid() }

func (n *nobody) Ended() <-chan unix.WaitStatus { return n.ended }

func (n *nobody) Signal(sig unix.Signal) error {
	var status unix.WaitStatus
	switch sig {
	case unix.SIGTERM, unix.SIGINT:
	case unix.SIGKILL:
		status = unix.WaitStatus(sig)
	default:
		return nil
	}
	n.once.Do(func() {
		n.ended <- status
		close(n.over)
	})
	return nil
}

func (n *nobody) OutOfMemory() bool { return false }

// failed says on the streams port why there is no main program, and ends.
func (a *agent) failed(err error) {
	s := a.stream()
	s.Fail(root.In(root.Wrap(err, "start the init"), "command"))
	go a.last(s, err)
}
