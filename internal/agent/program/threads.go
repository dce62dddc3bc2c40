package program

import (
	"runtime"
	"sync"
)

// Reserve starts n threads that Go keeps for later: to start one then costs time, and a
// runtime that cannot ends the process.
func Reserve(n int) {
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
