package keep

import (
	"runtime"
	"syscall"
	"time"

	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// beside is a process beside QEMU, a child of the keeper's.
type beside struct {
	m     *machine
	name  string
	pid   int // 0: reaped
	pidfd int // -1: it is not watched
}

// startBeside starts the processes beside QEMU, in its cgroup; words is where they
// write what goes wrong. After an error those that run are still to be ended.
func (m *machine) startBeside(words int) error {
	for i := range m.k.spec.Machine.Beside {
		if err := m.startOne(&m.k.spec.Machine.Beside[i], words); err != nil {
			return err
		}
	}
	return nil
}

func (m *machine) startOne(w *wire.Beside, words int) error {
	defer closeAll(w.FDs)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	b := &beside{m: m, name: w.Name, pidfd: -1}
	attr := &syscall.ProcAttr{
		Dir: "/", Files: []uintptr{uintptr(null), uintptr(null), uintptr(words)},
		Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: uintptr(w.CloneFlags), PidFD: &b.pidfd},
	}
	for _, fd := range w.FDs {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	if fd := m.k.spec.Payload.CgroupFD; fd != 0 {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, fd
	}
	payload := wire.Payload{Path: w.Path, Args: w.Args, Join: m.k.spec.Payload.Join}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // as the payload's: the thread ends here
		result <- joinAndStart(&payload, attr, &b.pid)
	}()
	if err := <-result; err != nil {
		return err
	}
	m.k.offer(b.pid)
	m.others = append(m.others, b)
	if b.pidfd < 0 {
		b.pidfd, err = unix.PidfdOpen(b.pid, 0)
	}
	return err
}

// ready is that the process has ended.
func (b *beside) ready(uint32) {
	var ws unix.WaitStatus
	pid, err := unix.Wait4(b.pid, &ws, unix.WNOHANG, nil)
	if err == unix.EINTR || err == nil && pid == 0 {
		return
	}
	b.pid = 0
	m := b.m
	m.k.close(&b.pidfd)
	// Such a server goes when QEMU has left it, so at the end it goes first at times;
	// and a QEMU that goes because of it tells that by itself.
	if m.over() || m.k.ending() {
		return
	}
	noisePipe{m}.ready(0)
	m.fail(m.withWords(printable(b.name) + " beside QEMU " + ended(ws)))
}

// over tells whether the machine is known to be at its end.
func (m *machine) over() bool {
	return m.reason != "" || m.panics || m.broken != "" || m.k.told != nil || m.k.failed || m.k.phase == over
}

// besideGrace is how long a process that was killed may take to go. One that hangs
// in its file system is left to whoever reaps orphans.
const besideGrace = time.Second

// endBeside ends the processes beside QEMU.
func (m *machine) endBeside() {
	for _, b := range m.others {
		if b.pid != 0 {
			unix.Kill(b.pid, unix.SIGKILL)
		}
	}
	until := time.Now().Add(besideGrace)
	for _, b := range m.others {
		if b.pid != 0 && b.pidfd >= 0 {
			left := max(time.Until(until), 0)
			unix.Poll([]unix.PollFd{{Fd: int32(b.pidfd), Events: unix.POLLIN}}, int(left/time.Millisecond))
			unix.Wait4(b.pid, nil, unix.WNOHANG, nil)
		}
		b.pid = 0
		m.k.close(&b.pidfd)
	}
	m.others = nil
}
