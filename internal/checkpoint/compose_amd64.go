package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// compose writes the list.
func (p *traced) compose(prog *program, areas []area, table table, filters [][]byte, o Options) error {
	table.aside(prog, o.Own)
	prog.remember(areas, table.image, table.free())
	table.open(prog)
	if err := p.flags(table, prog); err != nil {
		return err
	}
	if err := p.signals(prog); err != nil {
		return err
	}
	if err := p.itself(prog); err != nil {
		return err
	}
	for _, f := range filters {
		const set = 1 // SECCOMP_SET_MODE_FILTER
		prog.add(unix.SYS_SECCOMP, set, 0, prog.words(uint64(len(f)/8), prog.put(f)))
	}
	main := p.threads[0]
	for _, t := range p.threads[1:] {
		flags := uint64(unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM | unix.CLONE_SETTLS)
		if t.cleared != 0 {
			flags |= unix.CLONE_CHILD_CLEARTID | unix.CLONE_PARENT_SETTID
		}
		// Its own calls follow those of the first, which are one for each thread and its own.
		prog.addAs(asThread, unix.SYS_CLONE, flags, 0, t.cleared, t.cleared, t.regs.Fs_base)
	}
	clones := len(prog.calls) - len(p.threads) + 1
	const setFS = 0x1002 // ARCH_SET_FS
	prog.add(unix.SYS_ARCH_PRCTL, setFS, main.regs.Fs_base)
	prog.add(unix.SYS_SET_TID_ADDRESS, main.cleared)
	begins := make([]uint64, len(p.threads))
	for n, t := range p.threads {
		begins[n] = prog.next()
		t.goOn(prog)
	}
	for n := range p.threads[1:] {
		prog.calls[clones+n].args[5] = begins[n+1]
	}
	return nil
}

// timers makes sure that there are none that a copy would not have.
func (p *traced) timers() error {
	if all, err := os.ReadFile(p.proc("timers")); err == nil && len(all) > 0 {
		return errors.New("it has timers")
	}
	for which := range uint64(3) {
		b, err := p.threads[0].ask(32, 1, unix.SYS_GETITIMER, which, 0)
		if err != nil {
			return fmt.Errorf("getitimer: %w", err)
		}
		if !slices.Equal(b, make([]byte, len(b))) {
			return errors.New("it has timers")
		}
	}
	return nil
}

// signals has handlers as they are.
func (p *traced) signals(prog *program) error {
	const size = 32 // of the kernel's struct sigaction
	none := make([]byte, 8)
	for n := uint64(1); n <= 64; n++ {
		if n == uint64(unix.SIGKILL) || n == uint64(unix.SIGSTOP) {
			continue
		}
		b, err := p.threads[0].ask(size, 2, unix.SYS_RT_SIGACTION, n, 0, 0, 8)
		if err != nil {
			return fmt.Errorf("rt_sigaction: %w", err)
		}
		if !slices.Equal(b[:8], none) {
			prog.add(unix.SYS_RT_SIGACTION, n, prog.put(b), 0, 8)
		}
	}
	return nil
}

// itself has what is the process's and no thread's.
func (p *traced) itself(prog *program) error {
	status, err := fields(p.proc("status"))
	if err != nil {
		return err
	}
	umask, err := strconv.ParseUint(status["Umask"], 8, 64)
	if err != nil {
		return err
	}
	prog.add(unix.SYS_UMASK, umask)
	b, err := os.ReadFile(p.proc("stat"))
	if err != nil {
		return err
	}
	// Where code, data, heap, stack, arguments and environment lie: of use to the C library,
	// whose heap can grow then, and to who lists processes. Source: proc(5), prctl(2).
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // the first is the file's third
	at := func(n int) (v uint64) {
		if n-3 < len(f) && err == nil {
			v, err = strconv.ParseUint(f[n-3], 10, 64)
		}
		return v
	}
	brk, err2 := p.threads[0].call(unix.SYS_BRK, 0)
	where := prog.words(at(26), at(27), at(45), at(46), at(47), brk, at(28), at(48), at(49), at(50), at(51), 0, 0xffffffff<<32)
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	const set, all = 35, 14 // PR_SET_MM, PR_SET_MM_MAP
	prog.addAs(mayFail, unix.SYS_PRCTL, set, all, where, 104, 0)
	return nil
}

// goOn has t as it was.
func (t *task) goOn(prog *program) {
	if t.robust[0] != 0 {
		prog.add(unix.SYS_SET_ROBUST_LIST, t.robust[0], t.robust[1])
	}
	if t.rseq.Pointer != 0 {
		prog.addAs(mayFail, unix.SYS_RSEQ, t.rseq.Pointer, uint64(t.rseq.Size), 0, uint64(t.rseq.Signature))
	}
	prog.add(unix.SYS_PRCTL, unix.PR_SET_NAME, prog.text(t.name))
	prog.addAs(asStack, unix.SYS_RT_SIGRETURN, prog.put(t.frame(prog)))
}

// frame is a struct ucontext, as the kernel leaves it on the stack of a thread that has got a
// signal. Source: linux/arch/x86/include/uapi/asm/{ucontext,sigcontext}.h.
func (t *task) frame(prog *program) []byte {
	const (
		withXState, withSS, strictSS = 1, 2, 4
		magic1, magic2               = 0x46505853, 0x46505845
		software                     = 464 // where the kernel and programs talk of the rest
	)
	x := slices.Clone(t.xstate)
	features := binary.LittleEndian.Uint64(x[software:])
	// Tiles are of a thread that has asked for them, which none here has; of others the kernel
	// takes no state that has room for them. Source: linux/arch/x86/kernel/fpu/signal.c.
	const tiles, beforeTiles, usual = 3 << 17, 2696, 1<<10 - 1
	if features&tiles != 0 {
		x, features = x[:beforeTiles], features&usual
	}
	size := uint32(len(x))
	binary.LittleEndian.PutUint32(x[software:], magic1)
	binary.LittleEndian.PutUint32(x[software+4:], size+4)
	binary.LittleEndian.PutUint64(x[software+8:], features)
	binary.LittleEndian.PutUint32(x[software+16:], size)
	state := prog.put(binary.LittleEndian.AppendUint32(x, magic2))
	r := t.resumed()
	var b []byte
	for _, v := range []uint64{
		withXState | withSS | strictSS, 0,
		t.stack[0], t.stack[1], t.stack[2],
		r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15, r.Rdi, r.Rsi, r.Rbp, r.Rbx, r.Rdx, r.Rax, r.Rcx, r.Rsp, r.Rip, r.Eflags,
		r.Cs | r.Ss<<48, 0, 0, 0, 0, state, 0, 0, 0, 0, 0, 0, 0, 0,
		t.blocked,
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
