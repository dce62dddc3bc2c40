package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// Info returns what the daemon says of itself.
func (c *Client) Info(ctx context.Context) (i api.Info, err error) {
	return i, c.call(ctx, get("info"), &i)
}

// HostCheck probes what strata needs of the daemon's host.
func (c *Client) HostCheck(ctx context.Context) (all []api.Finding, err error) {
	return all, c.call(ctx, get("host", "check"), &all)
}

// Capacity returns what the host can guarantee, and what of it is guaranteed.
func (c *Client) Capacity(ctx context.Context) (h api.Capacity, err error) {
	return h, c.call(ctx, get("host", "capacity"), &h)
}

// Needs returns the needs that the daemon knows.
func (c *Client) Needs(ctx context.Context) (all []api.Need, err error) {
	return all, c.call(ctx, get("needs"), &all)
}

// Reset stops and removes every environment.
func (c *Client) Reset(ctx context.Context) error { return c.call(ctx, post("system", "reset"), nil) }

// EventFilter chooses events; a zero field lets everything pass.
type EventFilter struct {
	Since      time.Time
	Until      time.Time // the stream ends then
	Types      []string
	Names      []string
	Operations []string
}

// maxEvent bounds one event. Unit: bytes.
const maxEvent = 1 << 20

// Subscription is a stream of events that the daemon has begun to send.
type Subscription struct {
	body  io.ReadCloser
	lines *bufio.Scanner
}

// Subscribe returns once the daemon has noted the subscription: what happens
// from then on is delivered. The caller closes it.
func (c *Client) Subscribe(ctx context.Context, f EventFilter) (*Subscription, error) {
	q := get("events").with("since", moment(f.Since), "until", moment(f.Until))
	for _, t := range f.Types {
		q = q.with("type", t)
	}
	for _, n := range f.Names {
		q = q.with("name", n)
	}
	for _, o := range f.Operations {
		q = q.with("operation", o)
	}
	answer, err := c.send(ctx, q)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(make([]byte, 4096), maxEvent)
	return &Subscription{body: answer.Body, lines: lines}, nil
}

// Next waits for the next event. io.EOF means that the daemon ended the stream.
func (s *Subscription) Next() (e api.Event, err error) {
	for s.lines.Scan() {
		data, ok := bytes.CutPrefix(s.lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		if err := json.Unmarshal(data, &e); err != nil {
			return e, fault.Internalf("an event cannot be read: %w", err)
		}
		return e, nil
	}
	if err := s.lines.Err(); err != nil {
		return e, err
	}
	return e, io.EOF
}

// Close ends the subscription.
func (s *Subscription) Close() error { return s.body.Close() }
