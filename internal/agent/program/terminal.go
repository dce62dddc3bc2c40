package program

import (
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// Terminal is one pseudo-terminal of the environment's own.
type Terminal struct{ Master, Slave int }

// OpenTerminal makes a terminal of the size that p asks for, in the devpts that
// is mounted inside, and gives it to uid.
func OpenTerminal(p *wire.Process, uid int) (t Terminal, err error) {
	t = Terminal{-1, -1}
	// Not /dev/ptmx, which programs inside may have replaced by something
	// else; nor is its other side looked for by name.
	t.Master, err = root.OpenIn(unix.AT_FDCWD, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return t, root.Wrap(err, "open a terminal")
	}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if err := unix.IoctlSetPointerInt(t.Master, unix.TIOCSPTLCK, 0); err != nil {
		return t, root.Wrap(err, "unlock the terminal")
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.Master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return t, root.Wrap(errno, "open the terminal's other side")
	}
	t.Slave = int(slave)
	if p.Rows > 0 && p.Cols > 0 {
		size := unix.Winsize{Row: p.Rows, Col: p.Cols}
		if err := unix.IoctlSetWinsize(t.Slave, unix.TIOCSWINSZ, &size); err != nil {
			return t, root.Wrap(err, "set the terminal's size")
		}
	}
	return t, root.Wrap(unix.Fchown(t.Slave, uid, -1), "give the terminal to the user")
}

// Close closes both sides.
func (t Terminal) Close() {
	unix.Close(t.Master)
	unix.Close(t.Slave)
}

// Console shows the terminal as /dev/console, before anything runs that could
// have put something else there.
func (t Terminal) Console() error {
	place, err := root.Target(unix.AT_FDCWD, "dev/console", false, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return root.Wrap(err, "make /dev/console")
	}
	defer unix.Close(place)
	fd, err := root.Clone(t.Slave, "", false)
	if err != nil {
		return root.Wrap(err, "copy the terminal")
	}
	defer unix.Close(fd)
	return root.Wrap(root.Attach(fd, place), "make /dev/console")
}

// GiveStreams makes standard streams the user's own, so that a program can
// open /dev/stderr again. Only pipes are touched: anything else is not strata's.
func GiveStreams(uid int, streams ...int) {
	for _, fd := range streams {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			_ = unix.Fchown(fd, uid, -1) // tolerated: only reopening by name is lost
		}
	}
}
