package mount

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// asRoot runs f on a thread that acts on files as the root of a user range,
// with this process's capabilities. It costs no thread of its own: that would
// be most of an overlay's price.
//
// The kernel makes a process that has done this undumpable: no core file, and
// its /proc files are root's. The daemon is root, so nothing else changes.
func asRoot(m IDMap, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := setFileID(m.Base)
		if err == nil {
			err = f()
		}
		if back := setFileID(0); back != nil {
			done <- errors.Join(err, back)
			return // still locked: the thread ends with the goroutine
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// setFileID sets the calling thread's file system user and group, and raises
// all capabilities that it is permitted.
func setFileID(id uint32) error {
	if err := unix.Setfsgid(int(id)); err != nil {
		return err
	}
	// Leaving file system id 0 takes the file capabilities out of the effective
	// set (capabilities(7), "Effect of user ID changes").
	if err := unix.Setfsuid(int(id)); err != nil {
		return err
	}
	if is, err := unix.SetfsuidRetUid(-1); err != nil || is != int(id) { // a refusal is not an error to the kernel
		return fault.Deniedf("this process may not act as user %d", id)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return err
	}
	for i := range sets {
		sets[i].Effective = sets[i].Permitted
	}
	return unix.Capset(&head, &sets[0])
}
