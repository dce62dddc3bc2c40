package gauge

import (
	"os"

	"golang.org/x/sys/unix"
)

// network serves one connection after the other until one says that it is over,
// or nobody comes within the budget.
func (j *job) network() error {
	l, port, err := listen()
	if err != nil {
		return err
	}
	defer unix.Close(l)
	if err := j.bound(l); err != nil {
		return err
	}
	j.tell("port", float64(port))
	if _, err := os.Stdout.Write(j.out); err != nil {
		return err
	}
	j.out = nil
	buf := make([]byte, 256<<10)
	for {
		c, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("accept", err)
		}
		over := j.serve(c, buf)
		unix.Close(c)
		if over {
			return nil
		}
	}
}

// listen opens a port of the kernel's choice, on IPv6 and IPv4 where there are both.
func listen() (fd, port int, err error) {
	fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	var at unix.Sockaddr = &unix.SockaddrInet6{}
	if err == nil {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0) // tolerated: IPv6 alone is served then
		err = unix.Bind(fd, at)
	}
	if err != nil { // a kernel without IPv6
		if fd >= 0 {
			unix.Close(fd)
		}
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return -1, 0, os.NewSyscallError("socket", err)
		}
		err = unix.Bind(fd, &unix.SockaddrInet4{})
	}
	if err == nil {
		err = unix.Listen(fd, 4)
	}
	if err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, os.NewSyscallError("listen", err)
	}
	switch a := at.(type) {
	case *unix.SockaddrInet6:
		port = a.Port
	case *unix.SockaddrInet4:
		port = a.Port
	}
	return fd, port, nil
}

// bound makes every wait on a socket end with the budget.
func (j *job) bound(fd int) error {
	tv := unix.NsecToTimeval(int64(j.budget))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// serve does what the connection's first byte says, and tells whether it is over.
func (j *job) serve(c int, buf []byte) (over bool) {
	if j.bound(c) != nil || unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) != nil {
		return false
	}
	if n, err := receive(c, buf[:1]); n != 1 || err != nil {
		return false
	}
	switch buf[0] {
	case 'e':
		for n, err := receive(c, buf); n > 0 && err == nil && send(c, buf[:n]); n, err = receive(c, buf) {
		}
	case 's':
		for n, err := receive(c, buf); n > 0 && err == nil; n, err = receive(c, buf) {
		}
		send(c, buf[:1])
	case 'g':
		for send(c, buf) {
		}
	}
	return buf[0] == 'q'
}

// receive is a read that signals do not end: those with a time limit are never
// restarted by the kernel. Source: signal(7).
func receive(c int, b []byte) (int, error) {
	for {
		if n, err := unix.Read(c, b); err != unix.EINTR {
			return n, err
		}
	}
}

// send sends all of b, and tells whether it could.
func send(c int, b []byte) bool {
	for len(b) > 0 {
		n, err := unix.SendmsgN(c, b, nil, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}
