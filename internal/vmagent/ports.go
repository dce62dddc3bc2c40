package vmagent

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// The names of the ports, as QEMU's command line has them.
const (
	controlPort = "strata.control"
	streamsPort = "strata.streams"
)

// portPatience is how long the ports may take to come once their driver is there.
const portPatience = 30 * time.Second

// busyMost bounds the last wait for a port that another process still has open; all
// of them together take twice as long.
const busyMost = 10 * time.Second

// portClass is where the kernel lists ports. Source: drivers/char/virtio_console.c.
const portClass = "/sys/class/virtio-ports"

// announcements are the kernel's own words on devices that come.
type announcements struct{ sock int }

// listen is called before the drivers are loaded, so that nothing is missed.
// Source: netlink(7), NETLINK_KOBJECT_UEVENT; group 1 is the kernel's.
func listen() (announcements, error) {
	sock, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return announcements{-1}, err
	}
	return announcements{sock}, unix.Bind(sock, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})
}

// until calls ready now and after each announcement, until it is true.
func (n announcements) until(patience time.Duration, ready func() bool) bool {
	end := time.Now().Add(patience)
	buf := make([]byte, 8<<10)
	for !ready() {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		wait := unix.NsecToTimeval(int64(left))
		_ = unix.SetsockoptTimeval(n.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
		_, _, err := unix.Recvfrom(n.sock, buf, 0)
		if err != nil && err != unix.EINTR && err != unix.EAGAIN && err != unix.ENOBUFS {
			return ready()
		}
	}
	return true
}

// findPorts waits for both ports and notes which devices they are.
func (a *agent) findPorts(news announcements) error {
	found := news.until(portPatience, func() bool {
		entries, _ := os.ReadDir(portClass)
		for _, e := range entries {
			switch readLine(portClass + "/" + e.Name() + "/name") {
			case controlPort:
				a.control = e.Name()
			case streamsPort:
				a.streams = e.Name()
			}
		}
		if a.control != "" && a.streams != "" {
			return true
		}
		if len(entries) > 0 || a.installed { // in a system that is not strata's, serial ports may be anybody's
			return false
		}
		if a.control, a.streams = serialPorts(ttyClass); a.control == "" {
			return false
		}
		hasten(ttyClass, a.control, a.streams)
		return true
	})
	unix.Close(news.sock)
	if !found {
		return a.blame(root.Fail(root.Missing, "", "the machine has no ports "+controlPort+" and "+streamsPort))
	}
	return nil
}

// readLine returns a small file of the kernel's without the end of its line, ""
// where it cannot be read.
func readLine(path string) string {
	b := readAt(unix.AT_FDCWD, path)
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == ' ') {
		b = b[:len(b)-1]
	}
	return string(b)
}

// port is one open port. Reads wait for a host where there is none yet; when one
// that was heard has gone, they end.
type port struct {
	file   *os.File
	raw    syscall.RawConn
	heard  bool
	serial bool
}

var errNoPort = errors.New("the port is not there")

// open opens the port that is the device name, in the folder of devices that the
// system started with: the environment's own shows none. Only one can hold it open.
func (a *agent) open(name string) (*port, error) {
	if name == "" {
		return nil, errNoPort
	}
	fd := -1
	var err error
	serial := strings.HasPrefix(name, "ttyS")
	for wait := time.Millisecond; wait < busyMost; wait *= 2 {
		fd, err = unix.Openat(a.dev, name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
		if err == nil && serial {
			if err = claim(fd); err == nil {
				err = raw(fd)
			}
			if err != nil {
				unix.Close(fd)
			}
		}
		if err != unix.EBUSY {
			break
		}
		time.Sleep(wait) // process 1 is letting go of it, of which nobody is told
	}
	if err != nil {
		return nil, root.Wrap(err, "open port "+name)
	}
	p, err := newPort(fd, name)
	if err == nil {
		p.serial = serial
	}
	return p, err
}

func newPort(fd int, name string) (*port, error) {
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &port{file: f, raw: raw}, nil
}

// Read implements io.Reader.
func (p *port) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	e := p.raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), b)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN, err == nil && n == 0 && !p.heard:
				return false // the kernel wakes readers when a host comes, too
			}
			return true
		}
	})
	if e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	p.heard = true
	return n, nil
}

// Write implements io.Writer.
func (p *port) Write(b []byte) (int, error) { return p.file.Write(b) }

// Close implements io.Closer.
func (p *port) Close() error { return p.file.Close() }

// drain waits until the host has taken everything that was written.
func (p *port) drain(patience time.Duration) {
	_ = p.raw.Control(func(fd uintptr) {
		if p.serial {
			sent(int(fd), patience)
			return
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		_, _ = unix.Poll(fds, int(patience.Milliseconds())) // a host that takes nothing loses it
	})
}
