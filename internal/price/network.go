package price

import (
	"bufio"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// served bounds how long the measuring command waits for a connection, and one
// connection waits for anything. Unit: as said.
const served = 10 * time.Second

// network measures the way between this process and a side.
func network(ctx context.Context, side Side, budget time.Duration) (map[string]float64, error) {
	if side.Address() == "" {
		return nil, fault.Unablef("it has no network")
	}
	ctx, cancel := context.WithCancel(ctx)
	said, say := io.Pipe()
	over := make(chan error, 1)
	go func() {
		err := side.Gauge(ctx, "network:"+strconv.FormatInt(served.Milliseconds(), 10), say)
		say.CloseWithError(io.EOF)
		over <- err
	}()
	defer func() {
		cancel()
		said.Close()
		<-over
	}()
	first, err := bufio.NewReader(io.LimitReader(said, maxSaid)).ReadString('\n')
	if err != nil {
		return nil, fault.Wrap(err, "hear where it listens")
	}
	found, err := parse(strings.NewReader(first), func(name string) bool { return name == "port" })
	if err != nil {
		return nil, err
	}
	w := wire{net.JoinHostPort(side.Address(), strconv.Itoa(int(found["port"]))), budget / 3}
	out := map[string]float64{}
	for name, measure := range map[string]func(context.Context) (float64, error){latency: w.latency, incoming: w.incoming, outgoing: w.outgoing} {
		if out[name], err = measure(ctx); err != nil {
			return nil, fault.Wrap(err, "measure the network")
		}
	}
	conn, err := w.open(ctx, 'q')
	if err == nil {
		conn.Close()
	}
	return out, nil
}

// wire is the way to a measuring command that listens.
type wire struct {
	address string
	budget  time.Duration
}

// open connects, and says what the connection is for. What waits on it ends with ctx.
func (w wire) open(ctx context.Context, what byte) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: served}
	c, err := d.DialContext(ctx, "tcp", w.address)
	if err != nil {
		return nil, err
	}
	conn := c.(*net.TCPConn)
	context.AfterFunc(ctx, func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(w.budget + served))
	if _, err := conn.Write([]byte{what}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// latency is how many nanoseconds a byte takes there and back.
func (w wire) latency(ctx context.Context) (float64, error) {
	conn, err := w.open(ctx, 'e')
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	n, b := 0, []byte{1}
	var begin time.Time
	for begin.IsZero() || time.Since(begin) < w.budget {
		if n == 1 && begin.IsZero() {
			begin, n = time.Now(), 0 // the first one finds the way
		}
		if _, err := conn.Write(b); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return 0, err
		}
		n++
	}
	return float64(time.Since(begin)) / float64(n), nil
}

// incoming is how many bytes a second get to it.
func (w wire) incoming(ctx context.Context) (float64, error) {
	conn, err := w.open(ctx, 's')
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf, n := make([]byte, 256<<10), 0
	begin := time.Now()
	for time.Since(begin) < w.budget {
		sent, err := conn.Write(buf)
		n += sent
		if err != nil {
			return 0, err
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(conn, buf[:1]); err != nil { // all of it has arrived
		return 0, err
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}

// outgoing is how many bytes a second come from it.
func (w wire) outgoing(ctx context.Context) (float64, error) {
	conn, err := w.open(ctx, 'g')
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	buf, n := make([]byte, 256<<10), 0
	if _, err := io.ReadFull(conn, buf[:1]); err != nil {
		return 0, err
	}
	begin := time.Now()
	for time.Since(begin) < w.budget {
		got, err := conn.Read(buf)
		n += got
		if err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begin).Seconds(), nil
}
