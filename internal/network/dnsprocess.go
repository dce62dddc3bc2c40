package network

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/dns"
)

// dnsTimeout bounds each exchange with the answering process, its start included.
const dnsTimeout = 5 * time.Second

// pidFile says which process was started last: its number and its start time.
const pidFile = "names.pid"

// EnsureDNS has the answering process running, of this build and in this network
// namespace, listening on every network that is up. One that an earlier daemon
// started is kept; one that ends later is started anew. Kinds: Unable where it cannot be started.
func (h *Host) EnsureDNS(ctx context.Context) error {
	h.ensuring.Lock()
	defer h.ensuring.Unlock()
	return h.ensureDNS(ctx)
}

// ensureDNS does the work, with h.ensuring held.
func (h *Host) ensureDNS(ctx context.Context) error {
	err := h.syncDNS(ctx, true)
	h.mu.Lock()
	h.namesFault = err
	h.mu.Unlock()
	return err
}

// NamesFault tells why names are not answered, nil where they are. A program of
// the host that listens on port 53 of every address is the usual reason.
func (h *Host) NamesFault() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.namesFault
}

// syncDNS tells the process about networks; with start, it is started or
// replaced where it must be. h.ensuring is held.
func (h *Host) syncDNS(ctx context.Context, start bool) error {
	if len(h.o.DNSCommand) == 0 {
		return nil
	}
	if err := h.zone.flush(); err != nil {
		return err
	}
	answer, err := h.tellDNS(ctx, "sync")
	if !start {
		return nil // where it is not there, the next one reads the names anyway
	}
	if err == nil {
		want, errIdentity := dns.Identity(h.o.DNSCommand[0])
		if errIdentity != nil {
			return fault.Wrap(errIdentity, "start name service")
		}
		if answer == "ok "+want {
			h.watchDNS()
			return nil
		}
		if reason, bad := strings.CutPrefix(answer, "error "); bad {
			h.log.Debug("the name service is started anew", "reason", reason)
		}
	}
	if err := h.stopDNS(ctx); err != nil {
		return err
	}
	if err := h.startDNS(ctx); err != nil {
		return err
	}
	h.watchDNS()
	return nil
}

// tellDNS sends one line to the process and returns its answer.
func (h *Host) tellDNS(ctx context.Context, line string) (string, error) {
	dialer := net.Dialer{Timeout: dnsTimeout}
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(h.o.RunDir, dns.ControlFile))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(dnsTimeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// startDNS starts the process and waits until it listens.
func (h *Host) startDNS(ctx context.Context) error {
	ready, hand, err := os.Pipe()
	if err != nil {
		return fault.Wrap(err, "start name service")
	}
	defer ready.Close()
	cmd := exec.Command(h.o.DNSCommand[0], h.o.DNSCommand[1:]...)
	cmd.Stdout = hand
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	hand.Close()
	if err != nil {
		return fault.New(fault.Unable, "start name service: %w", err)
	}
	go func() { _ = cmd.Wait() }() // it usually ends long after us
	if err := ready.SetReadDeadline(time.Now().Add(dnsTimeout)); err != nil {
		return fault.Wrap(err, "start name service")
	}
	line, err := bufio.NewReader(io.LimitReader(ready, 4096)).ReadString('\n')
	if line = strings.TrimSpace(line); line != "ready" {
		_ = cmd.Process.Kill()
		if line == "" {
			line = fmt.Sprint("it said nothing: ", err)
		}
		return fault.Unablef("start name service: %s", line).Help("a program of the host that listens on port 53 of every address is in the way")
	}
	start, err := startTime(cmd.Process.Pid)
	if err != nil {
		return fault.Unablef("start name service: it ended at once")
	}
	return fault.Wrap(replaceFile(filepath.Join(h.o.RunDir, pidFile), fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, start), false), "start name service")
}

// stopDNS ends the process: by asking, and if that does not help, by force. A
// number that is another process by now is left alone.
func (h *Host) stopDNS(ctx context.Context) error {
	path := filepath.Join(h.o.RunDir, pidFile)
	process, err := openRecorded(path)
	if err != nil {
		return fault.Wrap(err, "stop name service")
	}
	if process < 0 {
		_, _ = h.tellDNS(ctx, "quit") // one whose start was cut off before it was recorded
		return nil
	}
	defer unix.Close(process)
	if _, err := h.tellDNS(ctx, "quit"); err != nil {
		h.log.Debug("the name service does not answer and is killed", "err", err)
		if err := unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fault.Wrap(err, "stop name service")
		}
	}
	if !waitEnd(process, dnsTimeout) {
		_ = unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0)
		if !waitEnd(process, dnsTimeout) {
			return fault.Busyf("the name service does not end")
		}
	}
	return removeFile(path)
}

// answering is the process that answers names, as long as it is watched.
type answering struct {
	process  *os.File // pidfd_open(2)
	recorded string   // in pidFile
	since    time.Time
}

// The wait before the process is started anew doubles from the shortest to the
// longest, and begins again for one that lived longer than that.
const (
	shortestWait = 100 * time.Millisecond
	longestWait  = time.Minute
)

// watchDNS has the recorded process started anew when it ends, with h.ensuring held.
func (h *Host) watchDNS() {
	path := filepath.Join(h.o.RunDir, pidFile)
	recorded, err := readFile(path)
	h.mu.Lock()
	same := h.closed || h.names != nil && h.names.recorded == recorded
	h.mu.Unlock()
	if same {
		return
	}
	process := -1
	if err == nil {
		process, err = openRecorded(path)
	}
	if err == nil && process >= 0 {
		err = unix.SetNonblock(process, true) // so that waiting for it takes no thread
	}
	if err != nil || process < 0 {
		h.log.Debug("the name service is not watched", "err", err)
		return
	}
	h.unwatchDNS()
	a := &answering{os.NewFile(uintptr(process), "name service"), recorded, time.Now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		a.process.Close()
		return
	}
	h.names = a
	go h.awaitDNS(a)
}

// unwatchDNS lets the process end as it likes.
func (h *Host) unwatchDNS() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.names != nil {
		h.names.process.Close()
		h.names = nil
	}
}

// awaitDNS waits for the end of a's process.
func (h *Host) awaitDNS(a *answering) {
	raw, err := a.process.SyscallConn()
	if err == nil {
		err = raw.Read(func(process uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, 0)
			return err == nil && n > 0
		})
	}
	a.process.Close()
	if err == nil {
		h.renewDNS(a, fault.Unablef("the name service has ended and is started anew"))
	}
}

// renewDNS starts the process anew after a while, unless somebody else does it
// before or it is not wanted any more. why is what is wrong until then.
func (h *Host) renewDNS(a *answering, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.names != a {
		return
	}
	h.log.Debug("names are not answered", "err", why)
	h.namesFault = why
	h.namesWait = min(2*h.namesWait, longestWait)
	if time.Since(a.since) > longestWait {
		h.namesWait = 0
	}
	h.namesWait = max(h.namesWait, shortestWait)
	time.AfterFunc(h.namesWait, func() {
		h.ensuring.Lock()
		defer h.ensuring.Unlock()
		h.mu.Lock()
		wanted := h.names == a
		h.mu.Unlock()
		if !wanted {
			return
		}
		if err := h.ensureDNS(context.Background()); err != nil {
			a.since = time.Now() // of the attempt
			h.renewDNS(a, err)
		}
	})
}

// openRecorded opens the process that path tells of, -1 where it is gone.
func openRecorded(path string) (int, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	number, start, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 1 {
		return -1, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, nil
	}
	// Looked at after it was opened: from here on the number cannot change hands.
	if now, err := startTime(pid); err != nil || now != start {
		unix.Close(fd)
		return -1, nil
	}
	return fd, nil
}

// startTime returns when a process began, in clock ticks since boot: with its
// number, that is unique. Source: proc_pid_stat(5), field 22.
func startTime(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, ok := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}

// waitEnd waits until the process of a pidfd has ended.
func waitEnd(process int, patience time.Duration) bool {
	end := time.Now().Add(patience)
	for {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n > 0
	}
}
