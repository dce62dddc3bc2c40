package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of ptrace that package unix has not. Source: linux/ptrace.h.
const (
	ptraceSeccompFilter = 0x420c
	ptraceRseq          = 0x420f
	ptraceSigmask       = 0x420a
	optionNoSeccomp     = 1 << 21 // PTRACE_O_SUSPEND_SECCOMP
	noteXState          = 0x202   // NT_X86_XSTATE
)

// stopPatience is how long a thread may take to stop, or to make a call.
const stopPatience = 5 * time.Second

// maxThreads bounds what is written down.
const maxThreads = 256

// traced is a process that stands still.
type traced struct {
	pid     int
	threads []*task // the first is the process's own
	memory  *os.File
	calls   uint64 // where it has an instruction that makes a system call
}

// task is one thread of it, and what the kernel knows of it.
type task struct {
	p      *traced
	tid    int
	signal unix.Signal // that has reached it meanwhile
	regs   unix.PtraceRegs
	xstate []byte

	name     string
	filtered string // how many filters of system calls it has, where the kernel says so
	blocked  uint64
	stack    [3]uint64 // of signals: struct sigaltstack
	cleared  uint64    // where the kernel clears its id when it ends
	robust   [2]uint64
	rseq     rseq
}

// rseq is struct ptrace_rseq_configuration.
type rseq struct {
	Pointer         uint64
	Size, Signature uint32
	Flags, _        uint32
}

// stop has all threads of pid stand still. The calling thread traces them from then on.
func stop(pid int) (p *traced, err error) {
	p = &traced{pid: pid}
	if p.memory, err = os.OpenFile(p.proc("mem"), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	seen := map[int]bool{}
	for again := true; again; {
		tids, err := numbers(p.proc("task"))
		if err != nil {
			return p, err
		}
		again = false
		for _, tid := range tids { // as long as there are new ones: those that run may make some
			if seen[tid] {
				continue
			}
			seen[tid], again = true, true
			t := &task{p: p, tid: tid}
			err := t.stop()
			if errors.Is(err, unix.ESRCH) { // it has ended meanwhile
				continue
			}
			if err != nil {
				return p, fmt.Errorf("stop thread %d: %w", tid, err)
			}
			if tid == pid {
				p.threads = append([]*task{t}, p.threads...)
			} else {
				p.threads = append(p.threads, t)
			}
			if len(p.threads) > maxThreads {
				return p, fmt.Errorf("it has more than %d threads", maxThreads)
			}
		}
	}
	if len(p.threads) == 0 || p.threads[0].tid != pid {
		return p, fmt.Errorf("its first thread has ended")
	}
	return p, nil
}

// release lets all go on that has been stopped.
func (p *traced) release() {
	for _, t := range p.threads {
		_ = ptrace(unix.PTRACE_DETACH, t.tid, 0, uintptr(t.signal)) // it may have been killed
	}
	p.memory.Close()
}

func (p *traced) proc(name string) string { return "/proc/" + strconv.Itoa(p.pid) + "/" + name }

func (t *task) proc(name string) string {
	return t.p.proc("task/" + strconv.Itoa(t.tid) + "/" + name)
}

func (t *task) stop() error {
	if err := unix.PtraceSeize(t.tid); err != nil {
		return err
	}
	if err := unix.PtraceInterrupt(t.tid); err != nil {
		return err
	}
	if err := t.wait(); err != nil {
		return err
	}
	// What is asked of it is asked by its own calls.
	if err := unix.PtraceSetOptions(t.tid, optionNoSeccomp); err != nil {
		return err
	}
	return unix.PtraceGetRegs(t.tid, &t.regs)
}

// wait waits until it stands still.
func (t *task) wait() error {
	for began := time.Now(); ; {
		var ws unix.WaitStatus
		got, err := unix.Wait4(t.tid, &ws, unix.WALL|unix.WNOHANG, nil)
		switch {
		case err != nil:
			return err
		case got == t.tid && ws.Stopped() && (ws.StopSignal() == unix.SIGTRAP):
			return nil
		case got == t.tid && ws.Stopped():
			t.signal = ws.StopSignal()
			return fmt.Errorf("it has got a signal (%v)", ws.StopSignal())
		case got == t.tid:
			return fmt.Errorf("it has ended")
		case time.Since(began) > stopPatience:
			return fmt.Errorf("it does not stop: %w", unix.ETIMEDOUT)
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// call has t make a system call.
func (t *task) call(number uint64, args ...uint64) (result uint64, err error) {
	r := t.regs
	defer func() {
		if back := unix.PtraceSetRegs(t.tid, &t.regs); err == nil {
			err = back
		}
	}()
	r.Rip, r.Rax, r.Orig_rax = t.p.calls, number, ^uint64(0) // no call that is to be made again
	var all [6]uint64
	copy(all[:], args)
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = all[0], all[1], all[2], all[3], all[4], all[5]
	if err := unix.PtraceSetRegs(t.tid, &r); err != nil {
		return 0, err
	}
	for range 3 { // a stop that was on its way counts as a step
		if err := unix.PtraceSingleStep(t.tid); err != nil {
			return 0, err
		}
		if err := t.wait(); err != nil {
			return 0, err
		}
		if err := unix.PtraceGetRegs(t.tid, &r); err != nil {
			return 0, err
		}
		if r.Rip != t.p.calls {
			break
		}
	}
	if r.Rip != t.p.calls+2 {
		return 0, fmt.Errorf("it does not make a system call")
	}
	if r.Rax > ^uint64(4095) {
		return 0, unix.Errno(-r.Rax)
	}
	return r.Rax, nil
}

// ask is call with room for an answer of n bytes on its stack, whose address is argument at.
func (t *task) ask(n, at int, number uint64, args ...uint64) ([]byte, error) {
	to := (t.regs.Rsp - 1024) &^ 63 // below what it may use without saying so
	before := make([]byte, n)
	if _, err := t.p.memory.ReadAt(before, int64(to)); err != nil {
		return nil, err
	}
	args[at] = to
	_, err := t.call(number, args...)
	answer := make([]byte, n)
	if err == nil {
		_, err = t.p.memory.ReadAt(answer, int64(to))
	}
	if _, back := t.p.memory.WriteAt(before, int64(to)); err == nil {
		err = back
	}
	return answer, err
}

// look finds out what the kernel knows of t.
func (t *task) look() error {
	t.xstate = make([]byte, 64<<10)
	v := unix.Iovec{Base: &t.xstate[0], Len: uint64(len(t.xstate))}
	if err := ptrace(unix.PTRACE_GETREGSET, t.tid, noteXState, uintptr(unsafe.Pointer(&v))); err != nil {
		return fmt.Errorf("read its registers: %w", err)
	}
	t.xstate = t.xstate[:v.Len]
	status, err := fields(t.proc("status"))
	if err != nil {
		return err
	}
	t.name, t.filtered = status["Name"], status["Seccomp"]+" "+status["Seccomp_filters"]
	// Not what a call has blocked for as long as it waits: that it does again.
	if err := ptrace(ptraceSigmask, t.tid, unsafe.Sizeof(t.blocked), uintptr(unsafe.Pointer(&t.blocked))); err != nil {
		return fmt.Errorf("read what signals it blocks: %w", err)
	}
	b, err := t.ask(24, 1, unix.SYS_SIGALTSTACK, 0, 0)
	if err != nil {
		return fmt.Errorf("sigaltstack: %w", err)
	}
	for i := range t.stack {
		t.stack[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	if b, err = t.ask(8, 1, unix.SYS_PRCTL, unix.PR_GET_TID_ADDRESS, 0); err != nil {
		return fmt.Errorf("prctl(PR_GET_TID_ADDRESS): %w", err)
	}
	t.cleared = binary.LittleEndian.Uint64(b)
	if _, _, errno := unix.Syscall(unix.SYS_GET_ROBUST_LIST, uintptr(t.tid), uintptr(unsafe.Pointer(&t.robust[0])), uintptr(unsafe.Pointer(&t.robust[1]))); errno != 0 {
		return fmt.Errorf("get_robust_list: %w", errno)
	}
	// Before Linux 5.13 it cannot be asked; a program does without.
	if err := ptrace(ptraceRseq, t.tid, unsafe.Sizeof(t.rseq), uintptr(unsafe.Pointer(&t.rseq))); err != nil {
		t.rseq = rseq{}
	}
	return nil
}

// resumed are t's registers when it goes on: a call that it was in is made again.
func (t *task) resumed() unix.PtraceRegs {
	r := t.regs
	if int64(r.Orig_rax) < 0 {
		return r
	}
	switch -int64(r.Rax) { // of the kernel's own. Source: linux/errno.h
	case 512, 513, 514, 516: // ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK
		r.Rax = r.Orig_rax
		r.Rip -= 2
	}
	return r
}

// filters are the process's filters of system calls, the oldest first.
func (p *traced) filters() (all [][]byte, err error) {
	t := p.threads[0]
	for _, other := range p.threads {
		if other.filtered != t.filtered {
			return nil, errors.New("its threads have different filters of system calls")
		}
	}
	if strings.HasPrefix(t.filtered, "0 ") {
		return nil, nil
	}
	for i := 0; ; i++ {
		n, _, errno := unix.Syscall6(unix.SYS_PTRACE, ptraceSeccompFilter, uintptr(t.tid), uintptr(i), 0, 0, 0)
		if errno == unix.ENOENT && i > 0 {
			return all, nil
		}
		if errno != 0 {
			return nil, fmt.Errorf("read its filter of system calls: %w", errno)
		}
		b := make([]byte, n*8) // of struct sock_filter
		if err := ptrace(ptraceSeccompFilter, t.tid, uintptr(i), uintptr(unsafe.Pointer(&b[0]))); err != nil {
			return nil, fmt.Errorf("read its filter of system calls: %w", err)
		}
		all = append(all, b)
	}
}

//go:uintptrescapes
func ptrace(request, tid int, at, data uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), at, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// fields reads a file of lines "name: value".
func fields(path string) (map[string]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range bytes.Lines(b) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		all[string(name)] = string(bytes.TrimSpace(value))
	}
	return all, nil
}

// numbers lists a folder of proc whose names are numbers.
func numbers(path string) (all []int, err error) {
	names, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		v, err := strconv.Atoi(n.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}
