package qemu

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Patience is how long QEMU may take to answer where the context says nothing.
const Patience = 10 * time.Second

// maxLine bounds one line of a monitor. Unit: bytes.
const maxLine = 1 << 20

// eventQueue is how many events wait for a reader; more are thrown away.
const eventQueue = 64

// gone is a fault of a session that QEMU has ended.
type gone struct{ error }

func (g gone) Unwrap() error { return g.error }

// Gone tells whether err means that QEMU has ended the session, as it does with its own end.
func Gone(err error) bool { return errors.As(err, new(gone)) }

// Event is something that QEMU tells by itself.
// Source: QEMU, docs/interop/qmp-spec.rst.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// QMP is a session with a monitor, of which each socket serves one at a time. It
// is safe for concurrent use.
type QMP struct {
	conn   *net.UnixConn
	events chan Event

	// saying is held while a line is written, so that lines stay whole. It is
	// taken before mu, which is held for no wait: the answers need it.
	saying sync.Mutex

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan<- answer
	broken  error // why there is no session any more
}

type answer struct {
	result json.RawMessage
	err    error
}

// line is anything that QEMU sends.
type line struct {
	ID       *uint64         `json:"id"`
	Return   json.RawMessage `json:"return"`
	Greeting json.RawMessage `json:"QMP"`
	Failure  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event
}

// Dial opens a session with the monitor that listens on the unix socket path.
// Kinds: Busy where QEMU does not answer before ctx ends, Unable.
func Dial(ctx context.Context, path string) (*QMP, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, unix.EAGAIN) { // others wait for it already
		return nil, silent()
	}
	if err != nil {
		return nil, fault.Unablef("reach QEMU's monitor: %w", gone{err})
	}
	return Open(ctx, conn.(*net.UnixConn))
}

// Open opens a session on conn, which is the session's from here on.
func Open(ctx context.Context, conn *net.UnixConn) (*QMP, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	q := &QMP{conn: conn, events: make(chan Event, eventQueue), waiting: map[uint64]chan<- answer{}}
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	deadline, _ := ctx.Deadline()
	conn.SetReadDeadline(deadline)
	if !lines.Scan() {
		conn.Close()
		err := lines.Err()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, silent()
		}
		return nil, fault.Busyf("QEMU's monitor says nothing: %w", gone{cmp.Or(err, io.ErrUnexpectedEOF)})
	}
	var first line
	if json.Unmarshal(lines.Bytes(), &first) != nil || first.Greeting == nil {
		conn.Close()
		return nil, fault.Unablef("what listens is no monitor of QEMU's")
	}
	conn.SetReadDeadline(time.Time{})
	go q.read(lines)
	if err := q.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

func silent() error {
	return fault.Busyf("QEMU does not answer: it hangs, or somebody else has its monitor").Help("try again; one that hangs ends by `strata kill`")
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, Patience)
}

// Close ends the session; QEMU goes on.
func (q *QMP) Close() error { return q.conn.Close() }

// Events returns what QEMU tells by itself from now on. The channel is closed
// with the session. Events that nobody takes are thrown away, the newest first.
func (q *QMP) Events() <-chan Event { return q.events }

// read hands out what comes until the session ends.
func (q *QMP) read(lines *bufio.Scanner) {
	for lines.Scan() {
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			break
		}
		if l.Name != "" {
			select {
			case q.events <- Event{l.Name, bytes.Clone(l.Data)}:
			default:
			}
			continue
		}
		if l.ID != nil {
			q.settle(*l.ID, l)
		}
	}
	q.conn.Close()
	why := lines.Err()
	if why == nil {
		why = errors.New("it closed the connection")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = fault.Unablef("QEMU's monitor is gone: %w", gone{why})
	for id, w := range q.waiting {
		w <- answer{err: q.broken}
		delete(q.waiting, id)
	}
	close(q.events)
}

func (q *QMP) settle(id uint64, l line) {
	q.mu.Lock()
	w := q.waiting[id]
	delete(q.waiting, id)
	q.mu.Unlock()
	if w == nil {
		return
	}
	if l.Failure != nil {
		w <- answer{err: &Refused{plain(l.Failure.Class), plain(l.Failure.Desc)}}
		return
	}
	w <- answer{result: bytes.Clone(l.Return)}
}

// Refused is QEMU's own "no".
type Refused struct{ Class, Desc string }

func (r *Refused) Error() string { return r.Desc }

// Execute has a command done and reads its answer into result, which may be nil.
// files go with it, as getfd and add-fd take them. Kinds: Unable (QEMU refuses, see
// Refused; the session is over), Busy where ctx ended.
func (q *QMP) Execute(ctx context.Context, command string, args, result any, files ...*os.File) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	w := make(chan answer, 1)
	q.mu.Lock()
	if q.broken != nil {
		defer q.mu.Unlock()
		return q.broken
	}
	q.next++
	id := q.next
	q.waiting[id] = w
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.waiting, id)
		q.mu.Unlock()
	}()
	if err := q.send(ctx, id, command, args, files); err != nil {
		return err
	}
	select {
	case a := <-w:
		if a.err != nil {
			return fault.Unablef("QEMU does not do %s: %w", command, a.err)
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(a.result, result); err != nil {
			return fault.Unablef("QEMU's answer to %s is none: %w", command, err)
		}
		return nil
	case <-ctx.Done():
		return fault.Busyf("QEMU does not answer to %s: %w", command, ctx.Err())
	}
}

// send writes a command. A line that is written in part ends the session, since
// what follows it would be read as its end.
func (q *QMP) send(ctx context.Context, id uint64, command string, args any, files []*os.File) error {
	text, err := json.Marshal(struct {
		Execute string `json:"execute"`
		Args    any    `json:"arguments,omitempty"`
		ID      uint64 `json:"id"`
	}{command, args, id})
	if err != nil {
		return fault.Internalf("write %s for QEMU: %w", command, err)
	}
	var rights []byte
	for _, f := range files {
		// By way of Control, as Fd would make the file a blocking one.
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { rights = append(rights, unix.UnixRights(int(fd))...) })
		}
		if err != nil {
			return fault.Internalf("hand QEMU %s for %s: %w", f.Name(), command, err)
		}
	}
	q.saying.Lock()
	defer q.saying.Unlock()
	deadline, _ := ctx.Deadline()
	q.conn.SetWriteDeadline(deadline)
	text = append(text, '\n')
	n, _, err := q.conn.WriteMsgUnix(text, rights, nil)
	if err == nil && n < len(text) {
		_, err = q.conn.Write(text[n:])
	}
	runtime.KeepAlive(files)
	if err == nil {
		return nil
	}
	q.conn.Close()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fault.Busyf("QEMU does not take %s: %w", command, err)
	}
	return fault.Unablef("tell QEMU %s: %w", command, gone{err})
}

// plain makes words of QEMU's fit for a terminal and a log.
func plain(text string) string {
	const most = 1024
	text = strings.ToValidUTF8(text[:min(len(text), most)], "?")
	return fault.Printable(strings.Join(strings.Fields(text), " "))
}
