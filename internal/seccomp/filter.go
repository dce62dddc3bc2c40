package seccomp

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

// maxInstructions is the longest program the kernel takes.
// Source: linux/bpf_common.h, BPF_MAXINSNS.
const maxInstructions = 4096

// instructionSize is the size of one struct sock_filter. Unit: bytes.
const instructionSize = 8

// Filter is a compiled program. An empty one filters nothing.
type Filter []unix.SockFilter

// Bytes writes the program for another process of this machine, 8 bytes an
// instruction in the machine's byte order (little endian on both
// architectures).
func (f Filter) Bytes() []byte {
	out := make([]byte, 0, len(f)*instructionSize)
	for _, i := range f {
		out = binary.LittleEndian.AppendUint16(out, i.Code)
		out = append(out, i.Jt, i.Jf)
		out = binary.LittleEndian.AppendUint32(out, i.K)
	}
	return out
}

// Parse reads what Bytes wrote. It checks the length only: whether the program
// is sound is the kernel's to say. Kinds: Invalid.
func Parse(data []byte) (Filter, error) {
	n := len(data) / instructionSize
	if len(data)%instructionSize != 0 || n > maxInstructions {
		return nil, fault.Invalidf("%d bytes are no seccomp filter: a multiple of %d up to %d would be", len(data), instructionSize, maxInstructions*instructionSize)
	}
	f := make(Filter, n)
	for i := range f {
		one := data[i*instructionSize:]
		f[i] = unix.SockFilter{Code: binary.LittleEndian.Uint16(one), Jt: one[2], Jf: one[3], K: binary.LittleEndian.Uint32(one[4:])}
	}
	return f, nil
}

// Load puts the calling thread, and whatever it starts, under the filter for
// good. flags are those of seccomp(2): 0 for the thread alone (lock it first),
// unix.SECCOMP_FILTER_FLAG_TSYNC for every thread of the process. The thread
// needs no_new_privs or CAP_SYS_ADMIN in its user namespace. An empty filter
// loads nothing. Kinds: Invalid, Denied, Unable.
func (f Filter) Load(flags uint) error {
	if len(f) == 0 {
		return nil
	}
	if len(f) > maxInstructions {
		return fault.Invalidf("a seccomp filter of %d instructions is more than the kernel's %d", len(f), maxInstructions)
	}
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(f)
	switch {
	case errno == unix.EACCES || errno == unix.EPERM:
		return fault.Deniedf("load seccomp filter: %w", errno).Help("set no_new_privs first, or keep CAP_SYS_ADMIN until the filter is loaded")
	case errno == unix.ENOSYS:
		return fault.Unablef("load seccomp filter: %w", errno).Help("this kernel is built without CONFIG_SECCOMP_FILTER")
	case errno != 0:
		return fault.Invalidf("load seccomp filter: %w", errno)
	case thread != 0:
		return fault.Conflictf("load seccomp filter: thread %d is under another filter", thread)
	}
	return nil
}
