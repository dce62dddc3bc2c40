package resource

import (
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Run calls start on a thread that has entered the group's v1 hierarchies, so
// that the process it starts is born in them, and throws the thread away. The v2
// hierarchy is start's to enter, with OpenUnified and CgroupFD; on v2 start runs on
// the calling thread. It returns start's error, or why the thread could not enter.
//
// The thread is never the process's first one: the runtime cannot end that, and it
// would hold the group for as long as the process lives.
func (g *Group) Run(start func() error) error {
	files := g.ThreadFiles()
	if len(files) == 0 {
		return start()
	}
	done := make(chan error, 1)
	go onSpareThread(func() {
		for _, file := range files {
			if err := put(filepath.Dir(file), filepath.Base(file), "0"); err != nil {
				done <- explain(err, "enter control group %s", g.id)
				return
			}
		}
		done <- start()
	})
	return <-done
}

// onSpareThread runs work on a thread that ends with it.
func onSpareThread(work func()) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		work() // never unlocked: the thread ends with this goroutine
		return
	}
	// Held here, the first thread cannot be given to the next goroutine.
	done := make(chan struct{})
	go func() {
		defer close(done)
		onSpareThread(work)
	}()
	<-done
	runtime.UnlockOSThread()
}
