package control

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/vmagent/control/meeting"
)

// maxStale bounds what may stand in the port from before, and is thrown away:
// the answers to all that an earlier host may have asked at once, and then some.
// Unit: bytes.
const maxStale = 64 << 20

// meet finds the agent at the other end of conn. Until it has answered, nothing
// else may be sent; nothing that it said before is heard.
func meet(ctx context.Context, conn net.Conn) error {
	end := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer end()
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	number := binary.BigEndian.Uint64(random[:])
	if _, err := conn.Write(meeting.Append(nil, number)); err != nil {
		return away(ctx, err)
	}
	if err := find(conn, number); err != nil {
		return away(ctx, err)
	}
	if !end() {
		return away(ctx, ctx.Err())
	}
	return nil
}

// find reads r up to the preamble with number, and not a byte further: the agent
// says nothing before it is asked.
func find(r interface{ Read([]byte) (int, error) }, number uint64) error {
	var kept []byte
	chunk := make([]byte, 16<<10)
	for total := 0; total < maxStale; {
		n, err := r.Read(chunk)
		total += n
		kept = append(kept, chunk[:n]...)
		if got, rest, ok := meeting.Find(kept); ok && got == number {
			if len(rest) > 0 {
				return fault.Unablef("the agent speaks without being asked")
			}
			return nil
		}
		if err != nil {
			return err
		}
		kept = append([]byte(nil), meeting.Keep(kept)...)
	}
	return fault.Unablef("the agent floods its port")
}

// away says that no agent answered.
func away(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fault.Busyf("the agent inside did not answer in time").Help("see the console: strata console NAME")
	}
	if fault.KindOf(err) != fault.Internal {
		return err
	}
	return fault.Unablef("the agent inside cannot be reached: %w", err)
}
