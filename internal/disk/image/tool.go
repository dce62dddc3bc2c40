package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/qemu/confine"
)

// Tool writes images, by a QEMU without a machine.
type Tool struct {
	QEMU  qemu.Program
	Agent string // path of strata-agent, which confines it
	User  uint32 // user and group that it becomes; no other program's
}

// session is such a QEMU. It ends with its context, with close, and with this process.
type session struct {
	qmp   *qemu.QMP
	stop  context.CancelFunc
	ended chan struct{}
}

// firstFD is QEMU's monitor, and files follow it.
const firstFD = 3

// start runs QEMU with args that name files by number, of which the first one is
// firstFD+1.
func (t Tool) start(ctx context.Context, args argv.Args, files []*os.File) (_ *session, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fault.Internalf("make a socket: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "qemu")
	defer ours.Close() // net has a duplicate
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fault.Internalf("use a socket: %w", err)
	}
	all := argv.Args{"-M", "none", "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", argv.Sandbox}
	all.Connected("monitor", firstFD)
	all.Add("-mon", "chardev=monitor,mode=control")
	all.Add(args...)
	running, stop := context.WithCancel(ctx)
	s := &session{stop: stop, ended: make(chan struct{})}
	cmd := exec.CommandContext(running, t.Agent)
	cmd.Args = confine.Spec{Program: t.QEMU.Path, Args: all, User: t.User, First: firstFD, Last: firstFD + len(files), Tied: true}.Encode()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Namespaces}
	cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	said := &qemu.Words{}
	cmd.Stderr = said
	begun := make(chan error)
	go func() {
		runtime.LockOSThread() // it is this thread that QEMU is tied to
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		begun <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is told by what it was asked for
		}
		close(s.ended)
	}()
	if err := <-begun; err != nil {
		stop()
		conn.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start QEMU: %w", ctx.Err())
		}
		return nil, fault.Unablef("start %s: %w", t.Agent, err)
	}
	theirs.Close() // so that its end is seen
	if s.qmp, err = qemu.Open(running, conn.(*net.UnixConn)); err != nil {
		stop()
		<-s.ended
		if text := said.String(); text != "" && ctx.Err() == nil {
			return nil, fault.Invalidf("QEMU does not take the image: %s", text).At("image")
		}
		return nil, errors.Join(ctx.Err(), err)
	}
	return s, nil
}

// close ends QEMU.
func (s *session) close() {
	s.qmp.Close()
	s.stop()
	<-s.ended
}

// job is what QEMU says of one. Source: QEMU, qapi/job.json.
type job struct {
	ID      string `json:"id"`
	Status  string `json:"status"`
	Current int64  `json:"current-progress"`
	Total   int64  `json:"total-progress"`
	Error   string `json:"error"`
}

// lookEvery is how often a job is asked how far it is.
const lookEvery = 200 * time.Millisecond

// run does a job to its end.
func (s *session) run(ctx context.Context, command string, args map[string]any, progress func(done, total int64)) error {
	const id = "job"
	args["job-id"] = id
	if err := s.qmp.Execute(ctx, command, args, nil); err != nil {
		return err
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		var jobs []job
		if err := s.qmp.Execute(ctx, "query-jobs", nil, &jobs); err != nil {
			return err
		}
		if len(jobs) != 1 || jobs[0].ID != id {
			return fault.Internalf("QEMU has lost a job")
		}
		j := jobs[0]
		progress(j.Current, j.Total)
		if j.Status == "concluded" {
			if j.Error != "" {
				return failed(j.Error)
			}
			return s.qmp.Execute(ctx, "job-dismiss", map[string]any{"id": id}, nil)
		}
		if err := s.change(ctx, look.C); err != nil {
			return err
		}
	}
}

// failed is why a job has failed. Source of what QEMU says of a full host: glibc, strerror(ENOSPC).
func failed(said string) error {
	if strings.Contains(said, "No space left on device") {
		return fault.Busyf("the disk is full: QEMU cannot write the image: %.300s", said).Help("free some space, for example with `strata rm` and `strata template prune`")
	}
	return fault.Invalidf("QEMU cannot write the image: %.300s", said).At("image")
}

// change waits for a job's next step, or until it is time to look.
func (s *session) change(ctx context.Context, look <-chan time.Time) error {
	for {
		select {
		case e, ok := <-s.qmp.Events():
			if !ok {
				return fault.Internalf("QEMU has ended while it wrote the image")
			}
			if e.Name == "JOB_STATUS_CHANGE" {
				return nil
			}
		case <-look:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("write an image: %w", ctx.Err())
		}
	}
}
