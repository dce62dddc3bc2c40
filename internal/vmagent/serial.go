package vmagent

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// Where the lines of an agent are whose machine has no virtio-serial: the third and the
// fourth serial port of a PC. They are found by their I/O ports, as sysfs writes them.
const (
	controlLine = "0x3E8"
	streamsLine = "0x2E8"
)

// ttyClass is where the kernel lists terminals. Source: drivers/tty/serial/serial_core.c.
const ttyClass = "/sys/class/tty"

// noUART is the type of a serial port that the kernel has a name for and that is not
// there. Source: linux/serial_core.h, PORT_UNKNOWN.
const noUART = "0"

// serialPorts returns the devices of both lines, "" where the machine has not both.
func serialPorts(class string) (control, streams string) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return "", ""
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "ttyS") || readLine(class+"/"+e.Name()+"/type") == noUART {
			continue
		}
		switch readLine(class + "/" + e.Name() + "/port") {
		case controlLine:
			control = e.Name()
		case streamsLine:
			streams = e.Name()
		}
	}
	if control == "" || streams == "" {
		return "", ""
	}
	return control, streams
}

// collected is how many bytes a UART collects before it asks for attention: the most that a
// 16550A can. QEMU hands over as many at a time, and each time costs two programs' turns.
const collected = "14"

// hasten makes serial ports as quick as they can be; one that stays slow does no harm.
func hasten(class string, names ...string) {
	for _, name := range names {
		_ = writeFile(class+"/"+name+"/rx_trig_bytes", collected)
	}
}

// claim makes an open serial port one process's own: unlike other ports any number can
// hold it open. The kind is unix.EBUSY where another has it.
func claim(fd int) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		return unix.EBUSY
	}
	return err
}

// raw has a serial port pass on every byte as it is, and throws away what came before
// that: the kernel may have taken it for a line that somebody types. There is no flow
// control. None is needed: QEMU hands over nothing that the UART has no room for, the
// kernel keeps 640 KiB of what it has taken from that, and who sends waits for windows and
// answers. Source: drivers/tty/tty_buffer.c, TTYB_DEFAULT_MEM_LIMIT.
func raw(fd int) error {
	t := unix.Termios{Iflag: unix.IGNBRK | unix.IGNPAR, Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200, Ispeed: unix.B115200, Ospeed: unix.B115200}
	t.Cc[unix.VMIN] = 1
	return root.Again(func() error { return unix.IoctlSetTermios(fd, unix.TCSETSF, &t) })
}

// sent waits until a serial port has sent what was written to it.
func sent(fd int, patience time.Duration) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if left, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ); err != nil || left == 0 {
			return
		}
	}
}
