package streams

import (
	"errors"
	"io"
	"sync"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/vmagent/port"
)

// link is the open port; one frame is written at a time.
type link struct {
	mu   sync.Mutex
	port io.WriteCloser
}

// host is one meeting on a link.
type host struct {
	link *link
	gone bool // guarded by link.mu
}

var errGone = errors.New("streams: the host has gone")

// write writes one frame, or nothing if the host has gone.
func (h *host) write(frame []byte) error {
	if h == nil {
		return errGone
	}
	h.link.mu.Lock()
	defer h.link.mu.Unlock()
	if h.gone {
		return errGone
	}
	_, err := h.link.port.Write(frame)
	if err != nil {
		// Half a frame may be written: nothing may follow, and the reader opens anew.
		h.gone = true
		h.link.port.Close()
	}
	return err
}

// leave makes sure that nothing more is said to h: a frame that is on its way is
// waited for, so that the next Hello's answer follows a whole one.
func (h *host) leave() {
	h.link.mu.Lock()
	h.gone = true
	h.link.mu.Unlock()
}

func (l *link) hello(number uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.port.Write(port.Append(nil, port.Hello, 0, port.HelloPayload(number)))
	return err
}

// maxWords bounds what a Failed says. Unit: bytes; JSON may make six of one.
const maxWords = port.MaxPayload / 8

// failureText is JSON of err's wire.Failure.
func failureText(err error) []byte {
	f := root.FailureOf(err)
	b := spec.AppendText([]byte(`{"kind":`), clip(f.Kind))
	if f.Field != "" {
		b = spec.AppendText(append(b, `,"field":`...), clip(f.Field))
	}
	b = spec.AppendText(append(b, `,"message":`...), clip(f.Message))
	if f.Hint != "" {
		b = spec.AppendText(append(b, `,"hint":`...), clip(f.Hint))
	}
	return append(b, '}')
}

func clip(s string) string { return s[:min(len(s), maxWords/4)] }

func busy() error {
	return root.Fail("busy", "", "512 programs run by exec in this environment already")
}
