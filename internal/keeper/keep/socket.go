package keep

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unsafe"

	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// send writes to a socket without waiting and without a signal.
func send(fd int, b []byte) (int, error) {
	return transfer(unix.SYS_SENDTO, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// receive reads from a socket without waiting.
func receive(fd int, b []byte) (int, error) {
	return transfer(unix.SYS_RECVFROM, fd, b, unix.MSG_DONTWAIT)
}

func transfer(call uintptr, fd int, b []byte, flags uintptr) (int, error) {
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// receivePacket reads one packet into b, and the descriptor that came with it
// (-1: none). A packet that does not fit, or that carries more than one
// descriptor, is an error; err is EAGAIN where nothing is there, and n is 0
// without one at the end of the connection.
func receivePacket(sock int, b []byte) (n, fd int, err error) {
	var control [64]byte // room for four descriptors; the kernel discards what is beyond
	n, nc, flags, _, err := unix.Recvmsg(sock, b, control[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, -1, err
	}
	fd = -1
	var fds []int
	if nc > 0 {
		messages, err := unix.ParseSocketControlMessage(control[:nc])
		if err != nil {
			return 0, -1, unix.EBADMSG
		}
		for i := range messages {
			if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
				fds = append(fds, got...)
			}
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || len(fds) > 1 {
		discard(fds...)
		return 0, -1, unix.EBADMSG
	}
	if len(fds) == 1 {
		fd = fds[0]
	}
	return n, fd, nil
}

// discard closes descriptors that came from outside and are not known to be
// harmless: closing one may wait for whoever serves its file system, so it is
// done apart.
func discard(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			go unix.Close(fd)
		}
	}
}

// sendJSON sends v as one packet without waiting.
func sendJSON(sock int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > wire.MaxMessage {
		return unix.EMSGSIZE
	}
	_, err = send(sock, b)
	return err
}

// checkTerminal tells whether fd is the master side of a terminal, and opens
// the other side. fd is hostile: a file of a file system that its sender serves
// could make any read, and even fstat, wait for ever, so the first question is
// one that the kernel answers from memory.
func checkTerminal(fd int) (peer int, err error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return -1, err
	}
	// Documentation/admin-guide/devices.txt: 5 char, 2 = /dev/ptmx.
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev_major != 5 || st.Rdev_minor != 2 {
		return -1, unix.ENOTTY
	}
	// Without O_NOCTTY it would become the terminal of the keeper's own session,
	// and the program could not take it.
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// checkDatagram tells whether fd is a datagram socket of this host.
func checkDatagram(fd int) error {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return unix.ENOTSOCK
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return unix.ENOTSOCK
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_DGRAM {
		return unix.ENOTSOCK
	}
	return nil
}

// checkProcess tells whether fd is of a process (pidfd) in the pid namespace of process
// first: nobody else is to get the signals of first's main program.
func checkProcess(fd, first int) error {
	b, err := readFile("/proc/self/fdinfo/"+strconv.Itoa(fd), 4096)
	if err != nil {
		return err
	}
	pid, ok := parsePidfd(b)
	if !ok {
		return unix.EBADF
	}
	var its, wanted unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/pid", &its); err != nil {
		return err
	}
	if err := unix.Stat("/proc/"+strconv.Itoa(first)+"/ns/pid", &wanted); err != nil {
		return err
	}
	if its.Dev != wanted.Dev || its.Ino != wanted.Ino {
		return unix.EPERM
	}
	return nil
}

// parsePidfd returns the process that a pidfd is of; ok is false where that is over, or
// out of sight, or b is of another descriptor. Source: proc(5), fdinfo.
func parsePidfd(b []byte) (pid int, ok bool) {
	for line := range bytes.Lines(b) {
		if text, found := bytes.CutPrefix(line, []byte("Pid:\t")); found {
			pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
			return pid, err == nil && pid > 0
		}
	}
	return 0, false
}
