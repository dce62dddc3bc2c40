package dns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The files in Config.Dir.
const (
	NamesFile   = "names"
	ControlFile = "names.sock"
	lockFile    = "names.lock"
)

// Config says where the process finds things.
type Config struct {
	Dir        string         // folder of the file of names and of the control socket
	ResolvConf string         // says who is asked for all other names; "": /etc/resolv.conf
	Ready      io.WriteCloser // gets "ready" or a reason, one line, and is closed; nil: nobody waits
	Log        *slog.Logger   // nil: nothing is logged
}

// Run answers until ctx ends or the daemon says quit. It fails where another
// process does so for the same folder.
func Run(ctx context.Context, c Config) (err error) {
	said := false
	say := func(line string) {
		if c.Ready != nil && !said {
			_, _ = fmt.Fprintln(c.Ready, line)
			_ = c.Ready.Close()
		}
		said = true
	}
	defer func() {
		if err != nil {
			say(err.Error())
		}
	}()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	lock, err := takeLock(filepath.Join(c.Dir, lockFile))
	if err != nil {
		return err
	}
	defer lock.Close()
	path := filepath.Join(c.Dir, ControlFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old control socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("make control socket: %w", err)
	}
	defer listener.Close()
	s := newServer(c)
	defer s.close()
	if err := s.sync(); err != nil {
		return err
	}
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	context.AfterFunc(ctx, func() { listener.Close() })
	if err := whenGone(ctx, path, quit); err != nil {
		return err
	}
	say("ready")
	for {
		conn, err := listener.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on control socket: %w", err)
		}
		s.control(conn, quit) // one at a time: only the daemon comes here
	}
}

func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process answers names for %s: %w", filepath.Dir(path), err)
	}
	return f, nil
}

// whenGone calls quit once path is removed: a root whose folder was deleted has
// nobody left to say so.
func whenGone(ctx context.Context, path string, quit func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("watch control socket: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	// A file that is still open loses its name as a change of its attributes.
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_ATTRIB|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF); err != nil {
		events.Close()
		return fmt.Errorf("watch control socket: %w", err)
	}
	context.AfterFunc(ctx, func() { events.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			if _, err := events.Read(b); err != nil {
				return
			}
			if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
				quit()
				return
			}
		}
	}()
	return nil
}

// controlTimeout bounds one exchange with the daemon.
const controlTimeout = 10 * time.Second

// control serves one line from the daemon. The answer to "sync" is
// "ok IDENTITY" (see Identity) or "error REASON".
func (s *server) control(conn net.Conn, quit func()) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(controlTimeout))
	line, err := bufio.NewReader(io.LimitReader(conn, 64)).ReadString('\n')
	if err != nil {
		return
	}
	switch strings.TrimSpace(line) {
	case "sync":
		if err := s.sync(); err != nil {
			fmt.Fprintf(conn, "error %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
			return
		}
		fmt.Fprintf(conn, "ok %s\n", s.identity)
	case "quit":
		s.close()
		fmt.Fprintln(conn, "ok")
		quit()
	default:
		fmt.Fprintln(conn, "error say sync or quit")
	}
}

// Identity is what the daemon compares to know whether a process that answers is
// the one that it would start: the build, by its file, and the network namespace.
func Identity(executable string) (string, error) {
	var file, ns unix.Stat_t
	if err := unix.Stat(executable, &file); err != nil {
		return "", fmt.Errorf("look at %s: %w", executable, err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
		return "", fmt.Errorf("look at own network namespace: %w", err)
	}
	return fmt.Sprintf("%d:%d:%d:%d %d:%d", file.Dev, file.Ino, file.Size, file.Mtim.Nano(), ns.Dev, ns.Ino), nil
}
