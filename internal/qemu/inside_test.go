package qemu_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel/loop"
	"github.com/strata-project/strata/internal/qemu/confine"
)

// TestMain makes this program what the tests need besides: the stage that becomes
// QEMU, and the guest's process 1.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == confine.Command:
		os.Exit(confine.Run(os.Args))
	case len(os.Args) > 1 && os.Args[1] == keys:
		os.Exit(readKey(os.Args[2]))
	case len(os.Args) > 1 && os.Args[1] == loop.Command:
		os.Exit(loop.Run())
	case os.Args[0] == "/init" && os.Getpid() == 1:
		if err := inside(); err != nil {
			fmt.Println("INSIDE:", err)
		}
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	status := m.Run()
	if kernels.dir != "" {
		os.RemoveAll(kernels.dir)
	}
	os.Exit(status)
}

// inside does what the control port says, one line each, and answers with one.
func inside() error {
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	later, err := os.ReadFile("/modules/later")
	if err != nil {
		return err
	}
	for _, path := range strings.Fields(string(order) + string(later)) {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
			fmt.Println("module", path, err)
		}
		f.Close()
	}
	for dir, kind := range map[string]string{"/dev": "devtmpfs", "/sys": "sysfs", "/proc": "proc"} {
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	port, err := openPort(qemu.ControlPort)
	if err != nil {
		return err
	}
	// The host may not be there yet: reads end at once then.
	for {
		lines := bufio.NewScanner(port)
		for lines.Scan() {
			answer, err := do(strings.Fields(lines.Text()))
			if err != nil {
				answer = "error: " + err.Error()
			}
			fmt.Fprintf(port, "%q\n", answer)
		}
		time.Sleep(time.Millisecond)
	}
}

func openPort(name string) (*os.File, error) {
	for range 1000 {
		found, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, file := range found {
			if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == name {
				fd, err := unix.Open("/dev/"+filepath.Base(filepath.Dir(file)), unix.O_RDWR, 0)
				if err != nil {
					return nil, err
				}
				return os.NewFile(uintptr(fd), name), nil // blocking: the runtime's poller would end it at once
			}
		}
		time.Sleep(time.Millisecond)
	}
	return nil, fmt.Errorf("there is no port %s", name)
}

func do(words []string) (string, error) {
	switch words[0] {
	case "read":
		text, err := os.ReadFile(words[1])
		return strings.TrimSpace(string(text)), err
	case "list":
		found, err := filepath.Glob(words[1])
		return strings.Join(found, " "), err
	case "write": // a device, synchronously: 64 KiB of a letter
		f, err := os.OpenFile(words[1], os.O_WRONLY|os.O_SYNC, 0)
		if err != nil {
			return "", err
		}
		_, err = f.Write([]byte(strings.Repeat("x", span)))
		return "written", errors.Join(err, f.Close())
	case "discard":
		f, err := os.OpenFile(words[1], os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		defer f.Close()
		return "discarded", discard(f, 0, span)
	case "panic":
		return "", os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "loop":
		out, err := exec.Command("/init", loop.Command).Output()
		return strings.TrimSpace(string(out)), err
	case "patch":
		return patch()
	case "off":
		return "", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	return "", fmt.Errorf("%q is nothing that can be done", words[0])
}

// patch has the kernel change its own code while other threads run it: what the
// scheduler counts is a place in it for each thing counted.
func patch() (string, error) {
	done := make(chan struct{})
	defer close(done)
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return "", err
		}
		go func() {
			defer w.Close()
			for {
				select {
				case <-done:
					return
				default:
					w.Write([]byte{0})
				}
			}
		}()
		go func() {
			defer r.Close()
			for b := make([]byte, 1); ; {
				if _, err := r.Read(b); err != nil {
					return
				}
			}
		}()
	}
	for i := range 150 {
		if err := os.WriteFile("/proc/sys/kernel/sched_schedstats", []byte{'0' + byte(i&1)}, 0); err != nil {
			return "", err
		}
	}
	return "patched", nil
}

// span is how much is written and discarded. Unit: bytes.
const span = 64 << 10
