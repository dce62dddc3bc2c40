//go:build linux && amd64

package loop

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of /dev/kvm, of a machine, and of its processor. Source: linux/kvm.h.
const (
	createVM        = 0xae01
	runSize         = 0xae04 // KVM_GET_VCPU_MMAP_SIZE
	createProcessor = 0xae41
	setMemory       = 0x4020ae46
	setTSS          = 0xae47
	run             = 0xae80
	getRegisters    = 0x8090ae81
	setRegisters    = 0x4090ae82
	getSpecial      = 0x8138ae83
	setSpecial      = 0x4138ae84
)

// exitReason is where struct kvm_run has it, and exitHalt the one that is wanted.
const (
	exitReason = 8
	exitHalt   = 5
)

// registers is struct kvm_regs.
type registers struct {
	ax, bx, cx, dx, si, di, sp, bp  uint64
	r8, r9, r10, r11, r12, r13, r14 uint64
	r15, instruction, flags         uint64
}

// segment is struct kvm_segment.
type segment struct {
	base                                                             uint64
	limit                                                            uint32
	selector                                                         uint16
	kind, present, level, wide, code, long, pages, free, unusable, _ uint8
}

// table is struct kvm_dtable.
type table struct {
	base  uint64
	limit uint16
	_     [3]uint16
}

// special is struct kvm_sregs.
type special struct {
	cs, ds, es, fs, gs, ss, tr, ldt     segment
	gdt, idt                            table
	cr0, cr2, cr3, cr4, cr8, efer, apic uint64
	_                                   [4]uint64
}

// memory is struct kvm_userspace_memory_region.
type memory struct {
	slot, flags          uint32
	physical, size, user uint64
}

// Where things lie in the machine's memory.
const (
	memorySize = 64 << 10
	level4     = 0x1000
	level3     = 0x2000
	level2     = 0x3000
	program    = 0x4000
)

// trial is one loop.
type trial struct {
	budget time.Duration
	begun  chan time.Duration // gets the thread's time when the loop begins
}

// Run is the command: it says what it found on standard output.
func Run() int {
	said := make(chan string, 1)
	thread := make(chan int, 1)
	t := trial{max(Budget, Factor*bare()), make(chan time.Duration, 1)}
	go func() {
		runtime.LockOSThread()
		thread <- unix.Gettid()
		said <- t.try()
	}()
	answer := t.watch(<-thread, said)
	_, _ = unix.Write(1, []byte(answer+"\n"))
	return 0 // ends the other thread too, wherever it is
}

// left is a variable of the package so that no compiler leaves the loop out.
var left int

// bare is how long the loop takes without KVM, of several times the shortest: an
// emulated processor does not know when it stood still.
func bare() time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	least := time.Duration(1<<63 - 1)
	for range 3 {
		begin := used(unix.Gettid())
		for left = Steps; left > 0; left-- {
		}
		least = min(least, used(unix.Gettid())-begin)
	}
	return least
}

// watch waits for the answer until the thread has used up its time.
func (t trial) watch(tid int, said <-chan string) string {
	late := time.Now().Add(Patience)
	var begun time.Duration
	running := false
	for {
		select {
		case s := <-said:
			return s
		case begun = <-t.begun:
			running = true
		case <-time.After(10 * time.Millisecond):
		}
		if running && used(tid)-begun > t.budget || time.Now().After(late) {
			return Slow + " " + strconv.Itoa(Steps) + " steps of a loop took more than " + t.budget.String()
		}
	}
}

// used is the processor time of a thread. Source: linux/posix-timers.h,
// MAKE_THREAD_CPUCLOCK with CPUCLOCK_SCHED.
func used(tid int) time.Duration {
	const perThread, sched = 4, 2
	var t unix.Timespec
	if unix.ClockGettime(int32(^tid<<3|perThread|sched), &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// try makes a machine and has its processor count down.
func (t trial) try() string {
	m, err := build()
	if err != nil {
		return Failed + " " + err.Error()
	}
	begin := used(unix.Gettid())
	t.begun <- begin
	for {
		_, err := request(m.processor, "run the processor", run, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return Failed + " " + err.Error()
		}
		break
	}
	took := used(unix.Gettid()) - begin
	if why := binary.NativeEndian.Uint32(m.state[exitReason:]); why != exitHalt {
		return Slow + " a loop ended for reason " + strconv.Itoa(int(why)) + " of linux/kvm.h, and not by itself"
	}
	var r registers
	if _, err := request(m.processor, "read registers", getRegisters, uintptr(unsafe.Pointer(&r))); err != nil {
		return Failed + " " + err.Error()
	}
	if r.cx != 0 {
		return Slow + " a loop that counts to 0 stopped at " + strconv.FormatUint(r.cx, 10)
	}
	if took > t.budget {
		return Slow + " " + strconv.Itoa(Steps) + " steps of a loop took " + took.String() + ", allowed are " + t.budget.String()
	}
	return Runs + " " + strconv.FormatInt(int64(took), 10)
}

type machine struct {
	processor int
	state     []byte // struct kvm_run
}

func build() (m machine, err error) {
	kvm, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return m, os.NewSyscallError("open /dev/kvm", err)
	}
	vm, err := request(kvm, "make a machine", createVM, 0)
	if err != nil {
		return m, err
	}
	// Only some processors of Intel's need it, and then below 4 GiB. Source:
	// Documentation/virt/kvm/api.rst, 4.15.
	if _, err := request(vm, "set the address of the TSS", setTSS, 0xfffbd000); err != nil {
		return m, err
	}
	ram, err := unix.Mmap(-1, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return m, os.NewSyscallError("map memory", err)
	}
	fill(ram)
	region := memory{size: memorySize, user: uint64(uintptr(unsafe.Pointer(&ram[0])))}
	if _, err := request(vm, "give it memory", setMemory, uintptr(unsafe.Pointer(&region))); err != nil {
		return m, err
	}
	if m.processor, err = request(vm, "make a processor", createProcessor, 0); err != nil {
		return m, err
	}
	size, err := request(kvm, "ask for a size", runSize, 0)
	if err != nil {
		return m, err
	}
	if m.state, err = unix.Mmap(m.processor, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return m, os.NewSyscallError("map the processor's state", err)
	}
	return m, m.longMode()
}

// fill writes page tables that map the first 2 MiB to themselves, and the program.
func fill(ram []byte) {
	const present, writable, large = 1 << 0, 1 << 1, 1 << 7
	binary.LittleEndian.PutUint64(ram[level4:], level3|present|writable)
	binary.LittleEndian.PutUint64(ram[level3:], level2|present|writable)
	binary.LittleEndian.PutUint64(ram[level2:], present|writable|large)
	copy(ram[program:], []byte{
		0xb9, Steps & 0xff, Steps >> 8 & 0xff, Steps >> 16 & 0xff, 0, // mov $Steps, %ecx
		0xff, 0xc9, // dec %ecx
		0x75, 0xfc, // jnz back to dec
		0xf4, // hlt
	})
}

// longMode puts the processor at the program, as a kernel of 64 bits has it.
func (m machine) longMode() error {
	var s special
	if _, err := request(m.processor, "read special registers", getSpecial, uintptr(unsafe.Pointer(&s))); err != nil {
		return err
	}
	// Source: Intel SDM volume 3, 26.3.1.2 (what a processor in this mode must have).
	const codeRead, dataWrite, busyTSS = 0xb, 0x3, 0xb
	s.cs = segment{limit: 1<<32 - 1, selector: 8, kind: codeRead, present: 1, code: 1, long: 1, pages: 1}
	data := segment{limit: 1<<32 - 1, selector: 16, kind: dataWrite, present: 1, code: 1, wide: 1, pages: 1}
	s.ds, s.es, s.fs, s.gs, s.ss = data, data, data, data, data
	s.tr = segment{limit: 0x67, selector: 24, kind: busyTSS, present: 1}
	s.ldt = segment{unusable: 1}
	s.cr0 = 1<<0 | 1<<4 | 1<<5 | 1<<31 // PE, ET, NE, PG
	s.cr3 = level4
	s.cr4 = 1 << 5        // PAE
	s.efer = 1<<8 | 1<<10 // LME, LMA
	if _, err := request(m.processor, "enter the long mode", setSpecial, uintptr(unsafe.Pointer(&s))); err != nil {
		return err
	}
	r := registers{instruction: program, flags: 1 << 1} // bit 1 is always set
	_, err := request(m.processor, "set registers", setRegisters, uintptr(unsafe.Pointer(&r)))
	return err
}

// request is ioctl(2); what says what for.
func request(fd int, what string, number, arg uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), number, arg)
	if errno != 0 {
		return 0, os.NewSyscallError(what, errno)
	}
	return int(n), nil
}
