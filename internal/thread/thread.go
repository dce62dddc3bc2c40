// Package thread runs code that changes its operating-system thread: its
// namespaces, control groups or credentials.
//
// Invariant: nothing else of the process ever runs on a thread that was changed.
// It is not for code that changes its thread back; that locks the one it is on.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Spare runs do on a thread that ends with it, and returns what do returns.
//
// The thread is never the process's first one. That one cannot end: the runtime
// would park it for good as do has left it, seen in /proc/self and holding what
// it has entered.
func Spare(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// Held meanwhile, it cannot be given to the next goroutine.
			defer runtime.UnlockOSThread()
			done <- Spare(do)
			return
		}
		done <- do() // never unlocked: the thread ends with this goroutine
	}()
	return <-done
}
