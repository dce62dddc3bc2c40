package screen

import (
	"context"
	"os"
	"sync"
)

// Monitor is a session with QEMU's monitor; *qemu.QMP is one.
type Monitor interface {
	Execute(ctx context.Context, command string, args, result any, files ...*os.File) error
}

// Display is what the command line of a machine with a screen says of it: nothing
// is shown on the host, and viewers come by descriptor, several at a time.
// Source: QEMU, qemu-options.hx, -display and -vnc.
func Display() []string { return []string{"-display", "none", "-vnc", "none,share=force-shared"} }

// Screen is the screen and the keyboard of one machine. It is safe for concurrent
// use: whoever types has the keyboard alone until the text is typed.
type Screen struct {
	monitor  Monitor
	keyboard chan struct{} // holds one token while somebody types

	mu   sync.Mutex // guards seen, a leaf
	seen fonts      // as last read
}

// New returns the screen that m leads to.
func New(m Monitor) *Screen { return &Screen{monitor: m, keyboard: make(chan struct{}, 1)} }
