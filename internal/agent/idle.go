package agent

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// settle takes from PID 1, once the main program runs, what it needs no more: the
// standard streams, which are the program's alone, and nearly all capabilities.
// filter is that of the main program; null is a descriptor of /dev/null, opened before the program could replace it.
func settle(keep []int, filter unix.SockFprog, null int) error {
	for fd := range 3 {
		if err := unix.Dup3(null, fd, 0); err != nil {
			return wrap(err, "leave the standard streams")
		}
	}
	unix.Close(null)
	var caps [2]unix.CapUserData
	for _, c := range keep {
		if c >= 0 && c < 64 {
			caps[c/32].Effective |= 1 << (c % 32)
			caps[c/32].Permitted |= 1 << (c % 32)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&caps)), 0); errno != 0 {
		return wrap(errno, "drop capabilities")
	}
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return wrap(errno, "set no_new_privs")
	}
	if filter.Len == 0 {
		return nil
	}
	if _, _, errno := syscall.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter))); errno != 0 {
		return wrap(errno, "load the seccomp filter")
	}
	return nil
}

// shrink gives back the pages of the program itself, of which a waiting PID 1
// uses few. What it does use comes back from the page cache, where all agents of
// the host share it. Garbage stays: to collect it takes more memory than there is of it.
func shrink() {
	for _, s := range segments() {
		_ = unix.Madvise(s, unix.MADV_DONTNEED) // tolerated: it only costs memory
	}
}

// The parts of the auxiliary vector and of program headers that matter here.
// Source: linux/auxvec.h and elf(5), Elf64_Phdr.
const (
	auxHeaders, auxHeaderSize, auxHeaderCount = 3, 4, 5

	segmentLoad, segmentWritable = 1, 2
)

type programHeader struct {
	kind, flags                                                    uint32
	offset, address, physical, sizeInFile, sizeInMemory, alignment uint64
}

// segments returns the read-only segments of this program in memory.
func segments() (all [][]byte) {
	vector, err := unix.Auxv()
	if err != nil {
		return nil
	}
	var at, size, count uintptr
	for _, v := range vector {
		switch v[0] {
		case auxHeaders:
			at = v[1]
		case auxHeaderSize:
			size = v[1]
		case auxHeaderCount:
			count = v[1]
		}
	}
	if at == 0 || size != unsafe.Sizeof(programHeader{}) {
		return nil
	}
	page := uint64(unix.Getpagesize())
	for _, h := range unsafe.Slice((*programHeader)(unsafe.Add(nil, at)), count) {
		if h.kind == segmentLoad && h.flags&segmentWritable == 0 {
			start, end := h.address&^(page-1), (h.address+h.sizeInMemory+page-1)&^(page-1)
			all = append(all, unsafe.Slice((*byte)(unsafe.Add(nil, uintptr(start))), end-start))
		}
	}
	return all
}
