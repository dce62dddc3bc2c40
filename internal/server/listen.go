package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Group is the group whose members may open the socket, where it exists.
const Group = "strata"

// socketMode: the socket is as good as root, so nobody but its group has it.
const socketMode = 0o660

// listenFDsStart is the first descriptor that systemd hands over.
// Source: sd_listen_fds(3), SD_LISTEN_FDS_START.
const listenFDsStart = 3

// Listen returns the socket that requests come in at: the one that systemd
// hands over, else a new one at path. A socket that nobody answers at is
// replaced. The caller must be the only daemon of its state folder already, so
// that two of them do not race here. Kinds: Conflict where a daemon answers at
// path, Denied, Internal.
func Listen(path string) (*net.UnixListener, error) {
	if l, err := activated(); l != nil || err != nil {
		return l, err
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fault.Wrap(err, "make the folder of the socket")
	}
	// Made with no permissions, given away, and only then opened to its group.
	old := unix.Umask(0o777)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fault.Wrap(err, "listen at %s", path)
	}
	if err := give(path); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// clearStale removes a socket that nobody answers at.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(err, "look at %s", path)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fault.Conflictf("%s is there and is no socket", path).Help("remove it, or choose another root")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
		return fault.Conflictf("a daemon answers at %s already", path).Help("stop it first, or choose another root with --root")
	}
	if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
		return fault.Conflictf("what is at %s does not answer as a stale socket would: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.Wrap(err, "remove the stale socket")
	}
	return nil
}

func give(path string) error {
	if os.Geteuid() == 0 {
		if g, err := user.LookupGroup(Group); err == nil {
			gid, err := strconv.Atoi(g.Gid)
			if err != nil {
				return fault.Internalf("group %s has the odd id %q", Group, g.Gid)
			}
			if err := os.Chown(path, -1, gid); err != nil {
				return fault.Wrap(err, "give the socket to group %s", Group)
			}
		}
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return fault.Wrap(err, "open the socket to its group")
	}
	return nil
}

// activated returns the socket that systemd opened for this process, nil where
// it did not. Source: sd_listen_fds(3).
func activated() (*net.UnixListener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n := os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	if n != "1" {
		return nil, fault.Invalidf("systemd handed over %q sockets", n).Help("strata.socket must have exactly one ListenStream")
	}
	unix.CloseOnExec(listenFDsStart)
	file := os.NewFile(listenFDsStart, "LISTEN_FD_3")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fault.Wrap(err, "use the socket that systemd handed over")
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fault.Invalidf("systemd handed over a %T, no unix socket", l), l.Close())
	}
	ul.SetUnlinkOnClose(false)
	return ul, nil
}

// Ready tells systemd that requests are answered; elsewhere it does nothing.
// Source: sd_notify(3).
func Ready() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	_ = os.Unsetenv("NOTIFY_SOCKET")
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1\n"))
	return err
}

// Peer is who is at the other end of a connection, as the kernel says.
type Peer struct {
	PID int
	UID int
	GID int
}

type peerKey struct{}

// PeerOf returns who sent a request; ok is false where it is not known.
func PeerOf(ctx context.Context) (p Peer, ok bool) {
	p, ok = ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// withPeer asks the kernel once per connection.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || cred == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, Peer{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)})
}
