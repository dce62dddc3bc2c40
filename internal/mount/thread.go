package mount

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on an operating-system thread of its own that is thrown away
// afterwards, so f may change the thread's credentials and namespaces.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end: Go would park it for good, and what
			// it has changed would be seen in /proc/self. Holding it meanwhile
			// makes the next goroutine run elsewhere.
			defer runtime.UnlockOSThread()
			done <- onThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// becomeRoot makes the calling thread act on files as the root of a user range,
// and keeps its capabilities. The thread must be thrown away afterwards.
func becomeRoot(m IDMap) error {
	// Leaving file system id 0 takes the file capabilities out of the effective
	// set (capabilities(7), "Effect of user ID changes"): raise them again.
	if err := unix.Setfsgid(int(m.Base)); err != nil {
		return err
	}
	if err := unix.Setfsuid(int(m.Base)); err != nil {
		return err
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
