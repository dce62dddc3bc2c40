package client

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// maxPicture bounds what is read of a screen. Unit: bytes.
const maxPicture = 128 << 20

// Screen returns what a machine's screen shows, as a PNG file.
func (c *Client) Screen(ctx context.Context, ref string) ([]byte, error) {
	return c.content(ctx, get(environments, ref, "screen.png"))
}

// ScreenText returns what is written on a machine's screen.
func (c *Client) ScreenText(ctx context.Context, ref string) (string, error) {
	text, err := c.content(ctx, get(environments, ref, "screen.txt"))
	return string(text), err
}

func (c *Client) content(ctx context.Context, q request) ([]byte, error) {
	answer, err := c.send(ctx, q)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxPicture))
	if err != nil {
		return nil, fault.Busyf("the daemon broke the screen off: %w", err)
	}
	return content, nil
}

// WaitScreen blocks until the text of a machine's screen matches pattern, a regular
// expression. timeout bounds it; 0: only ctx does.
func (c *Client) WaitScreen(ctx context.Context, ref, pattern string, timeout time.Duration) (m api.ScreenMatch, err error) {
	q := post(environments, ref, "screen", "wait").with("pattern", pattern)
	if timeout != 0 {
		q = q.with("timeout", timeout.String())
	}
	return m, c.call(ctx, q, &m)
}

// Type types on a machine's keyboard, and returns when it is done.
func (c *Client) Type(ctx context.Context, ref string, typing api.Typing) error {
	q := post(environments, ref, "type")
	q.body = typing
	return c.call(ctx, q, nil)
}

// VNC returns a connection to a machine's screen, keyboard and mouse, on which the
// daemon speaks RFB as a server does, with the security type None.
func (c *Client) VNC(ctx context.Context, ref string) (net.Conn, error) {
	conn, in, err := c.upgrade(ctx, get(environments, ref, "vnc"), api.RFBProtocol)
	if err != nil {
		return nil, err
	}
	return &buffered{conn, in}, nil
}

// buffered is a connection of which something was read before.
type buffered struct {
	net.Conn
	in *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.in.Read(p) }

// Transport returns what carries requests to the daemon, for a proxy in front of it.
func (c *Client) Transport() http.RoundTripper { return c.http.Transport }
