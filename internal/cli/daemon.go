package cli

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
)

// AutostartVariable names the environment variable that, set to "no", keeps the
// CLI from starting a daemon.
const AutostartVariable = "STRATA_AUTOSTART"

// startPatience bounds the wait for a daemon that was just started.
const startPatience = 5 * time.Second

// unitFolders is where systemd finds units. Source: systemd.unit(5).
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"}

// dialStarting connects to the daemon, and starts one where none listens and
// this user may.
func (a *app) dialStarting(p place.Places) client.Dial {
	dial := client.DialSocket(p.Socket)
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if !client.NotRunning(err) {
			return conn, err
		}
		if refusal := mayStart(p); refusal != nil {
			return nil, refusal
		}
		return a.start(ctx, p, dial)
	}
}

// mayStart says why this process does not start a daemon; nil where it does.
func mayStart(p place.Places) error {
	nobody := fault.Missingf("no daemon listens at %s", p.Socket)
	if strings.EqualFold(os.Getenv(AutostartVariable), "no") {
		return nobody.Help("start one with `stratad`; %s=no keeps this command from doing so", AutostartVariable)
	}
	if p.Root == "" && unitInstalled() {
		return nobody.Help("start it with `systemctl start strata.socket`")
	}
	if os.Geteuid() != 0 {
		if p.Root != "" {
			return nobody.Help("start one as root: `sudo stratad --root %s`", p.Root)
		}
		return nobody.Help("start one as root: `sudo stratad`, or any command of `sudo strata`")
	}
	return nil
}

func unitInstalled() bool {
	for _, folder := range unitFolders {
		for _, unit := range []string{"strata.socket", "strata.service"} {
			if _, err := os.Stat(filepath.Join(folder, unit)); err == nil {
				return true
			}
		}
	}
	return false
}

// start starts a daemon and returns a connection to it. Of several processes
// that come here at once one starts it; the others find it running.
func (a *app) start(ctx context.Context, p place.Places, dial client.Dial) (net.Conn, error) {
	if err := os.MkdirAll(p.Run, 0o755); err != nil {
		return nil, fault.Wrap(err, "make the run folder")
	}
	lock, err := os.OpenFile(filepath.Join(p.Run, "start.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fault.Wrap(err, "start a daemon")
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fault.Wrap(err, "wait for the start of another command")
	}
	if conn, err := dial(ctx); !client.NotRunning(err) {
		return conn, err
	}
	cmd, log, err := spawn(p)
	if err != nil {
		return nil, err
	}
	where := p.Root
	if where == "" {
		where = p.State
	}
	a.say("started a daemon (pid %d) for %s", cmd.Process.Pid, where)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	conn, err := await(ctx, dial, ended, log, func() bool { return isHeld(filepath.Join(p.Run, "daemon.lock")) })
	if err != nil {
		return nil, err
	}
	if err := failed(ctx, dial, ended, log); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// isHeld tells whether another process has the lock.
func isHeld(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// spawn starts a daemon in a session of its own, so that it outlives this command.
func spawn(p place.Places) (*exec.Cmd, string, error) {
	program, err := place.Binary("stratad")
	if err != nil {
		return nil, "", fault.Wrap(err, "start a daemon")
	}
	path := filepath.Join(p.Run, "stratad.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, "", fault.Wrap(err, "start a daemon")
	}
	defer log.Close()
	var args []string
	if p.Root != "" {
		args = []string{"--root", p.Root}
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, "", fault.Wrap(err, "start %s", program)
	}
	return cmd, path, nil
}

// await tries to connect until the daemon listens. One that ends while another is there,
// which runs tells, leaves that one's socket to be awaited all the same.
func await(ctx context.Context, dial client.Dial, ended <-chan error, log string, runs func() bool) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	pause := time.NewTimer(0)
	defer pause.Stop()
	step := time.Millisecond
	var over error
	for {
		select {
		case <-pause.C:
		case died := <-ended:
			ended = nil
			over = endedAtOnce(died, log)
		case <-ctx.Done():
			if over != nil {
				return nil, over
			}
			return nil, fault.Busyf("the daemon does not answer after %v", startPatience).Help("its log is %s", log)
		}
		conn, err := dial(ctx)
		if err == nil || !client.NotRunning(err) {
			return conn, err
		}
		if over != nil && !runs() {
			return nil, over
		}
		pause.Reset(step)
		step = min(step*2, 20*time.Millisecond)
	}
}

// failed says why a daemon that listens has ended before it answered anybody: it listens
// before it knows whether it can run. nil: it answers, or has not ended.
func failed(ctx context.Context, dial client.Dial, ended <-chan error, log string) error {
	answer := make(chan error, 1)
	go func() {
		_, err := client.NewDial(dial).Info(ctx)
		answer <- err
	}()
	var over <-chan time.Time
	for {
		select {
		case died := <-ended:
			return endedAtOnce(died, log)
		case err := <-answer:
			if err == nil {
				return nil
			}
			over = time.After(startPatience) // its end is seen a moment later
		case <-over:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func endedAtOnce(died error, log string) error {
	return fault.Internalf("the daemon ended at once: %v: %s", cmp.Or(died, errors.New("it ended")), lastLine(log)).Help("its log is %s", log)
}

// lastLine returns the last line of a log that is no hint.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "its log cannot be read"
	}
	defer f.Close()
	const tail = 4096
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		_, _ = f.Seek(-tail, io.SeekEnd)
	}
	data, _ := io.ReadAll(io.LimitReader(f, tail))
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for len(lines) > 1 && strings.HasPrefix(lines[len(lines)-1], " ") {
		lines = lines[:len(lines)-1]
	}
	return lines[len(lines)-1]
}
