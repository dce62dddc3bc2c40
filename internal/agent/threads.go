package agent

import (
	"runtime"
	"sync"
)

// spareThreads are those that PID 1 may come to need at once beside the ones that
// Go starts with: to wait in system calls and to hand signals on.
const spareThreads = 5

// reserve starts n threads that Go keeps for later. A runtime that cannot start a
// thread ends the program, and a zone that has used up its limit of processes must
// not take its PID 1 along.
func reserve(n int) {
	var all sync.WaitGroup
	all.Add(n)
	for range n {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			all.Done()
			all.Wait()
		}()
	}
	all.Wait()
}
