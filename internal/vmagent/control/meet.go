package control

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/vmagent/control/meeting"
)

// maxStale bounds what may stand in the port from before, and is thrown away:
// the answers to all that an earlier host may have asked at once, and then some.
// Unit: bytes.
const maxStale = 64 << 20

var errFlood = fault.Unablef("the agent floods its port")

// How long the agent may take until it is called again, at first and at most: what
// was said to one process of it is lost where another took its place.
const (
	callFirst = 100 * time.Millisecond
	callMost  = time.Second
)

// meet finds the agent at the other end of conn. Until it has answered, nothing
// else may be sent; nothing that it said before is heard. Each call has a number of
// its own, and only the last one's answer counts, after which no other can come.
func meet(ctx context.Context, conn net.Conn) error {
	end := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer end()
	f := finder{conn: conn}
	for wait := callFirst; ; wait = min(2*wait, callMost) {
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails
		number := binary.BigEndian.Uint64(random[:])
		if _, err := conn.Write(meeting.Append(nil, number)); err != nil {
			return away(ctx, err)
		}
		conn.SetReadDeadline(time.Now().Add(wait))
		if ctx.Err() != nil {
			return away(ctx, ctx.Err())
		}
		err := f.find(number)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			continue
		}
		if err == nil && !end() {
			err = ctx.Err()
		}
		if err != nil {
			return away(ctx, err)
		}
		return conn.SetReadDeadline(time.Time{})
	}
}

// finder looks for answers in what comes.
type finder struct {
	conn  io.Reader
	kept  []byte
	total int
}

// find reads up to the preamble with number, and not a byte further: the agent
// says nothing before it is asked.
func (f *finder) find(number uint64) error {
	chunk := make([]byte, 16<<10)
	for f.total < maxStale {
		n, err := f.conn.Read(chunk)
		f.total += n
		f.kept = append(f.kept, chunk[:n]...)
		if got, rest, ok := meeting.Find(f.kept); ok && got == number {
			if len(rest) > 0 {
				return fault.Unablef("the agent speaks without being asked")
			}
			return nil
		}
		f.kept = append([]byte(nil), meeting.Keep(f.kept)...)
		if err != nil {
			return err
		}
	}
	return errFlood
}

// away says that no agent answered.
func away(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Busyf("the agent inside did not answer in time").Help("see the console: strata console NAME")
	}
	if fault.KindOf(err) != fault.Internal {
		return err
	}
	return fault.Unablef("the agent inside cannot be reached: %w", broken{err})
}
