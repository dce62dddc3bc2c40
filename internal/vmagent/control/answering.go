package control

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/vmagent/control/answer"
)

// maxFields bounds the fields of one message, those of its status and of its answer
// together: the longest list that there is, and then some. Each may become an object of
// the daemon's that is fifty times as big as the two bytes it came in.
const maxFields = MaxProcesses + 64

// answering is a connection on which an agent only answers: what it says at all after
// each request is bounded by what all requests that may be under way ask for, and a
// message is passed on once it is known to decode to little.
type answering struct {
	net.Conn
	heard atomic.Int64 // bytes, since something was asked
	next  []byte       // of a message that may be passed on
}

func (a *answering) Write(b []byte) (int, error) {
	a.heard.Store(0)
	return a.Conn.Write(b)
}

func (a *answering) Read(b []byte) (int, error) {
	if len(a.next) == 0 {
		if err := a.message(); err != nil {
			return 0, err
		}
	}
	n := copy(b, a.next)
	if a.next = a.next[n:]; len(a.next) == 0 {
		a.next = nil
	}
	return n, nil
}

// message reads the next message.
func (a *answering) message() error {
	if a.heard.Load() > maxStale {
		return errFlood
	}
	var head [answer.HeaderSize]byte
	if _, err := io.ReadFull(a.Conn, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > answer.MaxMessage {
		return fault.Unablef("its answer has %d bytes", size)
	}
	whole := make([]byte, len(head)+int(size))
	copy(whole, head[:])
	if _, err := io.ReadFull(a.Conn, whole[len(head):]); err != nil {
		return err
	}
	a.heard.Add(int64(len(whole)))
	if !small(whole[len(head):]) {
		return fault.Unablef("its answer is malformed, or of too many parts")
	}
	a.next = whole
	return nil
}

// small tells whether a message of ttrpc, a status (1) and an answer (2), is well formed
// and has no more fields than maxFields.
func small(b []byte) bool {
	left, ok := maxFields, true
	count := func(b []byte, each func(field int, data []byte)) {
		ok = ok && answer.Read(b, func(field int, _ uint64, data []byte) {
			if left--; left >= 0 {
				each(field, data)
			}
		})
	}
	count(b, func(field int, inner []byte) {
		if field == 1 || field == 2 {
			count(inner, func(int, []byte) {})
		}
	})
	return ok && left >= 0
}
