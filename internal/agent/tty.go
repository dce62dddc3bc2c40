package agent

import (
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// terminal is one pseudo-terminal of the zone's own.
type terminal struct{ master, slave int }

// openTerminal makes a terminal of the size that p asks for, in the devpts that
// is mounted in the zone, and gives it to uid.
func openTerminal(p *wire.Process, uid int) (t terminal, err error) {
	// Not /dev/ptmx, which programs of the zone may have replaced by something
	// else; nor is its other side looked for by name.
	t.master, err = root.OpenIn(unix.AT_FDCWD, "/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return t, wrap(err, "open a terminal")
	}
	if err := unix.IoctlSetPointerInt(t.master, unix.TIOCSPTLCK, 0); err != nil {
		return t, wrap(err, "unlock the terminal")
	}
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return t, wrap(errno, "open the terminal's other side")
	}
	t.slave = int(slave)
	if p.Rows > 0 && p.Cols > 0 {
		size := unix.Winsize{Row: p.Rows, Col: p.Cols}
		if err := unix.IoctlSetWinsize(t.slave, unix.TIOCSWINSZ, &size); err != nil {
			return t, wrap(err, "set the terminal's size")
		}
	}
	return t, wrap(unix.Fchown(t.slave, uid, -1), "give the terminal to the user")
}

// console shows the terminal as /dev/console, before anything runs that could
// have put something else there.
func (t terminal) console() error {
	place, err := root.Target(unix.AT_FDCWD, "dev/console", false, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return wrap(err, "make /dev/console")
	}
	defer unix.Close(place)
	fd, err := root.Clone(t.slave, "", false)
	if err != nil {
		return wrap(err, "copy the terminal")
	}
	defer unix.Close(fd)
	return wrap(root.Attach(fd, place), "make /dev/console")
}

// giveStreams makes the standard streams the user's own, so that a program can
// open /dev/stderr again. Only pipes are touched: anything else is not strata's.
func giveStreams(uid int) {
	for fd := range 3 {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
			_ = unix.Fchown(fd, uid, -1) // tolerated: only reopening by name is lost
		}
	}
}
