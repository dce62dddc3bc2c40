package gauge

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// seed starts sequences of numbers that look random and are the same in every run.
const seed uint64 = 0x9E3779B97F4A7C15

// next is one step of xorshift64. Source: G. Marsaglia, "Xorshift RNGs", 2003.
func next(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	return x ^ x<<17
}

// cpu counts integer steps, each of which needs the one before.
func (j *job) cpu() error {
	const batch = 1 << 16
	x, n := seed, 0
	begin := time.Now()
	for time.Since(begin) < j.budget {
		for range batch {
			x = next(x)
		}
		n += batch
	}
	j.rate("cpu", n, time.Since(begin))
	runtime.KeepAlive(x) // the compiler would leave out what makes it
	return nil
}

// Shape of what memory walks: more than the caches of one processor, in lines.
const (
	walked = 32 << 20
	line   = 64
)

// The order in which memory walks, of a linear congruential generator: as its modulus is a
// power of two, one that is 1 more than a multiple of four and one that is odd make it go
// through all lines before it comes back. Written in order it takes an emulated processor a
// tenth of a second; shuffled by exchanges, most of one. Sources: Hull and Dobell, "Random
// Number Generators", 1962; the multiplier is L'Ecuyer's of 1999.
const (
	multiplier = 2891336453
	increment  = 1
)

// memory follows a chain that goes through all lines in no order that a prefetcher knows,
// so that each access needs the one before.
func (j *job) memory() error {
	area, err := unix.Mmap(-1, 0, walked, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	defer func() { _ = unix.Munmap(area) }()
	at := func(i uint32) []byte { return area[int(i)*line : int(i)*line+4] }
	const lines = walked / line
	for i := range uint32(lines) {
		put(at(i), (i*multiplier+increment)%lines)
	}
	const batch = 1 << 12
	n, p := 0, uint32(0)
	begin := time.Now()
	for time.Since(begin) < j.budget {
		for range batch {
			p = get(at(p))
		}
		n += batch
	}
	j.each("memory-access", n, time.Since(begin))
	runtime.KeepAlive(p)
	return nil
}

func put(b []byte, v uint32) {
	b[0], b[1], b[2], b[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
}

func get(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// syscall asks the kernel for what it answers at once.
func (j *job) syscall() error {
	const batch = 256
	n := 0
	begin := time.Now()
	for time.Since(begin) < j.budget {
		for range batch {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) // cannot fail
		}
		n += batch
	}
	j.each("syscall", n, time.Since(begin))
	return nil
}

// process starts this very program, which does nothing, and waits for its end.
func (j *job) process() error {
	args := []string{"strata-agent", Command, "hello:1"}
	n := 0
	begin := time.Now()
	for n == 0 || time.Since(begin) < j.budget {
		pid, err := syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{Env: os.Environ()})
		if err != nil {
			return os.NewSyscallError("start a program", err)
		}
		var status syscall.WaitStatus
		for {
			if _, err = syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
				break
			}
		}
		if err != nil {
			return os.NewSyscallError("wait4", err)
		}
		if status != 0 {
			return &os.SyscallError{Syscall: "the program that was started", Err: syscall.ECHILD}
		}
		n++
	}
	j.each("process", n, time.Since(begin))
	return nil
}
