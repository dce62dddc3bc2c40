package program

import (
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// allDescriptors is the end of the last range of descriptors. Source: close_range(2).
const allDescriptors = 1<<32 - 1

// Fork starts img as a child, born as img.Birth says, and returns its process id.
// What became of it is written to report, whose end without a word means that the
// program is executed; see Explain. The caller closes report, and reaps.
func (img *Image) Fork(report int) (pid int, err error) {
	if err := img.bear(report); err != nil {
		return 0, err
	}
	child, errno := fork(img)
	runtime.KeepAlive(img)
	if errno != 0 {
		return 0, root.Wrap(errno, "start a process")
	}
	return int(child), nil
}

// bear brings Birth into the form that system calls take.
func (img *Image) bear(report int) error {
	b, c := &img.Birth, &img.child
	img.report, c.agent, c.expendable = report, 0, b.Expendable
	if b.Cgroup != 0 {
		c.clone = cloneArgs{flags: unix.CLONE_INTO_CGROUP, exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(b.Cgroup)}
	}
	if img.process.Agent && b.Agent != 0 {
		c.agent = uintptr(b.Agent)
	}
	for _, fd := range b.Namespaces {
		c.namespaces = append(c.namespaces, uintptr(fd))
	}
	if b.Streams == nil {
		return nil
	}
	for _, fd := range b.Streams {
		if fd < 3 { // it would be overwritten before its turn
			return root.Fail(root.Internal, "", "start a process: its streams are the agent's own")
		}
		c.streams = append(c.streams, uintptr(fd))
	}
	keep := []int{report, int(c.agent), img.TTY}
	slices.Sort(keep)
	next := 3
	for _, fd := range keep {
		if fd > next {
			c.others = append(c.others, [2]uintptr{uintptr(next), uintptr(fd - 1)})
		}
		next = max(next, fd+1)
	}
	c.others = append(c.others, [2]uintptr{uintptr(next), allDescriptors})
	return nil
}

// Report tells how far a child of Start has come.
type Report struct {
	img  *Image
	pipe *os.File // nil: it is read in the memory that the child shares
}

// Start is Fork with a report that has to be waited for. It does not block. It may be
// called again after ErrNarrow, on a thread that was never narrowed.
func (img *Image) Start() (pid int, r *Report, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := img.narrow(); err != nil {
		return 0, nil, err
	}
	if !img.Birth.Expendable {
		pid, err = img.spawn()
		return pid, &Report{img: img}, err
	}
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return 0, nil, root.Wrap(err, "start a process")
	}
	pid, err = img.Fork(ends[1])
	unix.Close(ends[1])
	if err != nil {
		unix.Close(ends[0])
		return 0, nil, err
	}
	return pid, &Report{img, os.NewFile(uintptr(ends[0]), "report")}, nil
}

// Wait returns once the program is executed, or says why it is not. It waits at
// most as long as it is told to, and may be called once.
func (r *Report) Wait(most time.Duration) error {
	if r.pipe == nil {
		if !r.img.done(most) {
			return late(most)
		}
		unfinished.Delete(r.img)
		if r.img.message[0] == 0 {
			return nil
		}
		return explain(r.img.process, r.img.message[0], r.img.message[1])
	}
	defer r.pipe.Close()
	if err := r.pipe.SetReadDeadline(time.Now().Add(most)); err != nil {
		return root.Wrap(err, "start a process")
	}
	var b [ReportSize]byte
	n, err := r.pipe.Read(b[:])
	if os.IsTimeout(err) {
		return late(most)
	}
	return r.img.Explain(b[:n])
}

func late(most time.Duration) error {
	return root.Fail(root.Unable, "command", "start a process: it was not executed within "+most.String())
}

// Herald starts a child that tells the keeper, by sending text on sock, once
// the caller has been replaced by another program: it waits for the end of the pipe
// that report is the other side of. The new program finds it as a child that has
// ended.
func Herald(wait, report, sock int, text []byte) error {
	errno := herald(uintptr(wait), uintptr(report), uintptr(sock), &text[0], uintptr(len(text)))
	if errno != 0 {
		return root.Wrap(syscall.Errno(errno), "start a process")
	}
	return nil
}
