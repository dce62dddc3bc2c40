package program

import (
	"errors"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNarrow is what Start returns where programs of this process have other capabilities
// (Birth.Narrow), and the calling thread may have lost what this one is to have.
// Nothing was started.
var ErrNarrow = errors.New("the thread has lost a capability that the program is to have")

// narrows is what threads of this process have lost, or are to lose.
var narrows struct {
	sync.Mutex
	drops uint64 // capabilities, by a bit each; 0: no thread has lost any
	last  uintptr
}

// narrow takes out of the calling thread's bounding set what the program must not be able
// to gain, so that no child need do so: each capability is a new set of credentials,
// and where the processor is emulated all of them are a tenth of a start.
//
// Which threads have lost them is not kept, since Go's come and go: the last of them
// that was there tells. They are always lost in the same order, and a thread's children
// begin with what it has.
func (img *Image) narrow() error {
	if !img.Birth.Narrow {
		return nil
	}
	var drops uint64
	for _, c := range img.bounding {
		drops |= 1 << c
	}
	narrows.Lock()
	defer narrows.Unlock()
	if narrows.drops != 0 && narrows.drops != drops {
		return ErrNarrow
	}
	if drops == 0 {
		return nil
	}
	if narrows.drops == 0 {
		for _, c := range img.bounding {
			if bounds(c) {
				narrows.drops, narrows.last = drops, c
			}
		}
		if narrows.drops == 0 { // there is nothing to lose
			return nil
		}
	}
	if bounds(narrows.last) {
		for _, c := range img.bounding {
			if !bounds(c) {
				continue
			}
			if unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) != nil {
				return nil // the child meets the same, and says so
			}
		}
	}
	img.bounding = nil
	return nil
}

// bounds tells whether a capability is in the calling thread's bounding set.
func bounds(c uintptr) bool {
	has, _, errno := syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, c, 0)
	return errno == 0 && has == 1
}
