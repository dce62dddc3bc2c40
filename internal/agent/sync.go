package agent

import (
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// keeper is the agent's socket to its keeper.
type keeper struct {
	sock  int
	heard bool // it has said go
}

// say sends m, and fd with it where it is not negative.
func (k *keeper) say(m wire.Message, fd int) error {
	if f := m.Fault; f != nil && len(f.Message) > wire.MaxMessage/8 {
		f.Message = f.Message[:wire.MaxMessage/8]
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	return root.Again(func() error {
		return unix.Sendmsg(k.sock, spec.AppendMessage(nil, m), rights, nil, unix.MSG_NOSIGNAL)
	})
}

// started tells the keeper that the main program runs, and hands it over, so that
// signals from outside reach it and not process 1. Where the kernel refuses, process 1
// forwards them.
func (k *keeper) started(main int) error {
	fd := -1
	if main > 0 {
		if p, err := unix.PidfdOpen(main, 0); err == nil {
			fd = p
			defer unix.Close(fd)
		}
	}
	return k.say(wire.Message{Type: wire.Started}, fd)
}

// failed tells the keeper why nothing was started.
func (k *keeper) failed(err error) {
	_ = k.say(wire.Message{Type: wire.Failed, Fault: root.FailureOf(err)}, -1) // a keeper that is gone needs no answer
}

// wait blocks until the keeper says go.
func (k *keeper) wait() error {
	buf := make([]byte, 4096)
	var n int
	err := root.Again(func() (err error) {
		n, err = unix.Read(k.sock, buf)
		return err
	})
	if err != nil {
		return wrap(err, "wait for the keeper")
	}
	kind, err := spec.ReadType(buf[:n])
	k.heard = true
	if err != nil || kind != wire.Go {
		return root.Fail(root.Internal, "", "the keeper did not say go")
	}
	return nil
}

// settle is failed for PID 1: it answers to go, whatever went wrong before, and
// stays until the keeper has heard it.
func (k *keeper) settle(err error) {
	buf := make([]byte, 512)
	if !k.heard {
		_, _ = unix.Read(k.sock, buf)
	}
	k.failed(err)
	_ = root.Again(func() error { _, err := unix.Read(k.sock, buf); return err })
}

// gone tells whether the keeper has closed its end. It does not block.
func (k *keeper) gone() bool {
	buf := make([]byte, 1)
	n, _, err := unix.Recvfrom(k.sock, buf, unix.MSG_DONTWAIT|unix.MSG_PEEK)
	return (err == nil && n == 0) || err == unix.ECONNRESET
}
