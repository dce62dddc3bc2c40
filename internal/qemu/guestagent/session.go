package guestagent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// Bounds of what an agent may send for one request. Unit: bytes.
const (
	// maxLine is for all but the output of programs.
	maxLine = 256 << 10
	// maxOutput is the longest answer with output, which is in base64. qemu-guest-agent
	// itself cuts later. Source: QEMU, qga/commands.c, GUEST_EXEC_MAX_OUTPUT.
	maxOutput = MaxOutput*4/3 + maxLine
	// maxStale is what may stand in the port before the agent's number: an answer that
	// nobody waited for any more, and a little.
	maxStale = maxOutput + 64<<10
)

// maxDepth is how deeply an answer may nest; the deepest of the protocol's has 5 levels.
const maxDepth = 16

// sentinel stands before the agent's number, and is in no JSON. Source: QEMU,
// qga/qapi-schema.json, guest-sync-delimited.
const sentinel = 0xff

// How long an agent may take, on a host that is busy, to give a number back, and to
// answer what takes it no work.
const (
	meetPatience = 10 * time.Second
	callPatience = 10 * time.Second
)

// Agent is the one at a socket. It is safe for concurrent use; make it with New.
type Agent struct {
	path string
	turn chan struct{}
	conn net.Conn // nil: not connected
	in   *bufio.Reader
	over bool
}

// New returns the agent behind the socket at path, which is connected when it is needed.
func New(path string) *Agent { return &Agent{path: path, turn: make(chan struct{}, 1)} }

// Close lets go of the socket, for good. A request that is under way comes to its end first.
func (a *Agent) Close() {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	a.over = true
	a.drop()
}

func (a *Agent) drop() {
	if a.conn != nil {
		a.conn.Close()
		a.conn, a.in = nil, nil
	}
}

// request is what is asked: a command, its arguments, and what bounds the answer.
type request struct {
	command  string
	args     any
	max      int           // of the answer's line, in bytes; 0: maxLine
	patience time.Duration // 0: callPatience
	silent   bool          // that no answer comes is what success looks like
}

// ask sends a request and reads its answer into result, a pointer; nil: the answer is
// thrown away. Kinds: Busy where nobody answers in time, Unable where the agent refuses
// or what it says is not an answer.
func (a *Agent) ask(ctx context.Context, r request, result any) error {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return silence(ctx.Err())
	}
	if a.over {
		return fault.Conflictf("the system has ended")
	}
	answer, err := a.exchange(ctx, r)
	if err != nil {
		a.drop()
		if r.silent && quiet(err) {
			return nil
		}
		return silence(err)
	}
	refused, err := decode(answer, result)
	if err != nil {
		a.drop()
		return fault.Unablef("what the guest agent answers to %s is not understood: %w", r.command, err)
	}
	if refused != nil {
		return refused.fault(r.command)
	}
	return nil
}

// unanswered is what a request comes to that was sent, and that nobody answered.
type unanswered struct{ error }

func (u unanswered) Unwrap() error { return u.error }

// quiet tells whether a request was taken, and nothing came after it.
func quiet(err error) bool {
	var u unanswered
	return errors.As(err, &u) && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, io.EOF))
}

// exchange is one meeting and one request.
func (a *Agent) exchange(ctx context.Context, r request) ([]byte, error) {
	if a.conn == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", a.path)
		if err != nil {
			return nil, err
		}
		a.conn, a.in = conn, bufio.NewReaderSize(conn, 16<<10)
	}
	conn := a.conn
	stop := context.AfterFunc(ctx, func() {
		// Past: whoever reads or writes comes back at once.
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			a.drop() // its deadline may be set at any moment
		}
	}()
	if err := a.until(ctx, meetPatience); err != nil {
		return nil, err
	}
	if err := a.meet(); err != nil {
		return nil, err
	}
	patience, most := r.patience, r.max
	if patience == 0 {
		patience = callPatience
	}
	if most == 0 {
		most = maxLine
	}
	if err := a.until(ctx, patience); err != nil {
		return nil, err
	}
	if err := a.send(r.command, r.args); err != nil {
		return nil, err
	}
	answer, err := line(a.in, most)
	if err != nil {
		return nil, unanswered{err}
	}
	return answer, nil
}

// until bounds what follows.
func (a *Agent) until(ctx context.Context, patience time.Duration) error {
	end := time.Now().Add(patience)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	if err := a.conn.SetDeadline(end); err != nil {
		return err
	}
	return ctx.Err() // it may have ended before the deadline was set anew
}

func (a *Agent) send(command string, args any) error {
	text, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args})
	if err != nil {
		return err
	}
	_, err = a.conn.Write(append(text, '\n'))
	return err
}

// meet finds the agent: what comes after it is the answer to what is asked after it.
func (a *Agent) meet() error {
	var random [8]byte
	rand.Read(random[:])                                      // never fails, see crypto/rand
	number := int64(binary.BigEndian.Uint64(random[:]) >> 11) // JSON's numbers are exact to 53 bits
	if _, err := a.conn.Write([]byte{sentinel}); err != nil {
		return err
	}
	if err := a.send("guest-sync-delimited", map[string]int64{"id": number}); err != nil {
		return err
	}
	return find(a.in, number)
}

// find throws away what comes, up to the agent's number behind a sentinel.
func find(in *bufio.Reader, number int64) error {
	for left := maxStale; left > 0; {
		skipped, err := in.ReadSlice(sentinel)
		left -= len(skipped)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return err
		}
		// What stands behind a sentinel may be cut off by another, so it is only looked at
		// as far as a number can be.
		text, err := numberLine(in)
		if err != nil {
			return err
		}
		left -= len(text)
		var got int64
		if refused, err := decode(text, &got); err == nil && refused == nil && got == number {
			return nil
		}
	}
	return errStale
}

var (
	errStale = errors.New("it sends much, and no answer")
	errLong  = errors.New("its answer, such as what a program wrote, is too long")
)

// numberSize is more than the answer to guest-sync-delimited can have. Unit: bytes.
const numberSize = 128

// numberLine reads a short line; where there is none in so many bytes, or a sentinel is
// in it, it returns what there is before that.
func numberLine(in *bufio.Reader) ([]byte, error) {
	var text []byte
	for len(text) < numberSize {
		b, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		if b == sentinel {
			return text, in.UnreadByte()
		}
		if b == '\n' {
			break
		}
		text = append(text, b)
	}
	return text, nil
}

// line reads one line of at most so many bytes, without its end.
func line(in *bufio.Reader, most int) ([]byte, error) {
	var whole []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(whole)+len(part) > most {
			return nil, errLong
		}
		whole = append(whole, part...)
		if err == nil {
			return bytes.TrimRight(whole, "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// silence puts why no answer came into strata's words.
func silence(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fault.Busyf("no guest agent answers inside in time: %w", err).Help("install qemu-guest-agent inside, and have it started; strata agent install NAME brings strata's own")
	case errors.Is(err, errLong), errors.Is(err, errStale):
		return fault.Unablef("the guest agent inside broke the protocol: %w", err)
	}
	return fault.Unablef("the guest agent cannot be reached: %w", err)
}
