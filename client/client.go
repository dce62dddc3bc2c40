package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// host stands where HTTP wants a host's name.
const host = "strata"

// maxErrorBody bounds what is read of a failed answer. Unit: bytes.
const maxErrorBody = 1 << 20

// Dial opens a connection to the daemon.
type Dial func(ctx context.Context) (net.Conn, error)

// Client sends requests to one daemon.
type Client struct {
	dial Dial
	http *http.Client
}

// New returns a client of the daemon at a unix socket. It does not connect yet.
func New(socket string) *Client { return NewDial(DialSocket(socket)) }

// NewDial returns a client that connects by dial.
func NewDial(dial Dial) *Client {
	return &Client{dial: dial, http: &http.Client{
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableCompression: true,
			IdleConnTimeout:    time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// DialSocket connects to a unix socket. Its error is one that Unreachable and
// NotRunning recognize.
func DialSocket(socket string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, &unreachable{socket: socket, cause: err}
		}
		return conn, nil
	}
}

// unreachable says that nobody answered at the socket.
type unreachable struct {
	socket string
	cause  error
}

func (u *unreachable) Error() string { return "no daemon at " + u.socket + ": " + u.cause.Error() }
func (u *unreachable) Unwrap() error { return u.cause }

// Unreachable tells whether err means that no daemon was reached.
func Unreachable(err error) bool {
	var u *unreachable
	return errors.As(err, &u)
}

// NotRunning tells whether err means that no daemon listens: there is no
// socket, or nobody behind it.
func NotRunning(err error) bool {
	return Unreachable(err) && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED))
}

// BrokenOff tells whether err means that the daemon ended the connection before it answered,
// as it does where it ends itself.
func BrokenOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// connectFault says in a fault's words why a request got no answer.
func connectFault(err error) error {
	var u *unreachable
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case !errors.As(err, &u):
		var f *fault.Error
		if errors.As(err, &f) {
			return f
		}
		return fault.Busyf("the daemon ended the connection before it answered: %w", err).Help("see whether it runs still with `strata info`, and try again")
	case NotRunning(err):
		return fault.Missingf("no daemon listens at %s: %w", u.socket, u).Help("start it with `systemctl start strata.socket`, or `stratad` as root")
	case errors.Is(err, os.ErrPermission):
		return fault.Deniedf("you may not open %s: %w", u.socket, u).Help("run as root, or join the group of the socket: usermod -aG strata USER")
	}
	return fault.Busyf("the daemon at %s cannot be reached: %w", u.socket, u)
}

// operationKey is where a context has its operation id.
type operationKey struct{}

// WithOperation marks the requests made with ctx as the operation id: progress
// events about them carry it.
func WithOperation(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, operationKey{}, id)
}

// request is one request before it is sent.
type request struct {
	method string
	path   []string // escaped when joined
	query  url.Values
	body   any       // sent as JSON
	raw    io.Reader // sent as it is
}

func (c *Client) build(ctx context.Context, q request) (*http.Request, error) {
	var path strings.Builder
	path.WriteString("/v1")
	for _, part := range q.path {
		if part == "" || part == "." || part == ".." {
			return nil, fault.Missingf("there is nothing with the name %q", part)
		}
		path.WriteByte('/')
		path.WriteString(url.PathEscape(part))
	}
	target := "http://" + host + path.String()
	if len(q.query) > 0 {
		target += "?" + q.query.Encode()
	}
	content, kind := q.raw, "application/x-tar"
	if q.body != nil {
		text, err := json.Marshal(q.body)
		if err != nil {
			return nil, fault.Invalidf("the request cannot be encoded: %w", err)
		}
		content, kind = bytes.NewReader(text), "application/json"
	}
	r, err := http.NewRequestWithContext(ctx, q.method, target, content)
	if err != nil {
		return nil, fault.Invalidf("%w", err)
	}
	if content != nil {
		r.Header.Set("Content-Type", kind)
	}
	if id, ok := ctx.Value(operationKey{}).(string); ok {
		r.Header.Set(api.OperationHeader, id)
	}
	return r, nil
}

// send returns a successful answer, whose body the caller closes.
func (c *Client) send(ctx context.Context, q request) (*http.Response, error) {
	r, err := c.build(ctx, q)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, connectFault(err)
	}
	if answer.StatusCode >= 300 {
		defer answer.Body.Close()
		return nil, faultIn(answer)
	}
	return answer, nil
}

// call sends a request and decodes the answer into out, where it is not nil.
func (c *Client) call(ctx context.Context, q request, out any) error {
	answer, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if out == nil {
		_, _ = io.CopyN(io.Discard, answer.Body, maxErrorBody)
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(out); err != nil {
		return fault.Internalf("the daemon's answer cannot be read: %w", err)
	}
	_, _ = io.CopyN(io.Discard, answer.Body, maxErrorBody) // so that the connection can be used again
	return nil
}

// download sends a request and returns the answer as it comes, which the caller
// closes. One that is broken off is a fault of kind Busy.
func (c *Client) download(ctx context.Context, q request) (io.ReadCloser, error) {
	answer, err := c.send(ctx, q)
	if err != nil {
		return nil, err
	}
	return download{answer.Body}, nil
}

type download struct{ io.ReadCloser }

func (d download) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fault.Busyf("the daemon broke its answer off: %w", err)
	}
	return n, err
}

// faultIn reads the fault in a failed answer.
func faultIn(answer *http.Response) error {
	var e api.Error
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorBody))
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	if err != nil || e.Message == "" {
		return fault.Internalf("the daemon answered %s and no reason", answer.Status)
	}
	return Fault(e)
}

// Fault returns e as the fault that it was at the other end.
func Fault(e api.Error) error {
	all := make([]error, 0, 1+len(e.Also))
	for _, one := range append([]api.Error{e}, e.Also...) {
		kind, _ := fault.ParseKind(one.Kind)
		all = append(all, &fault.Error{Kind: kind, Message: one.Message, Field: one.Field, Hint: one.Hint})
	}
	return fault.Join(all...)
}

// get is a request without a body.
func get(path ...string) request { return request{method: http.MethodGet, path: path} }

func post(path ...string) request { return request{method: http.MethodPost, path: path} }

// with adds query parameters; those with an empty value are left out.
func (q request) with(pairs ...string) request {
	if q.query == nil {
		q.query = url.Values{}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.query.Add(pairs[i], pairs[i+1])
		}
	}
	return q
}

// flag is the query value of a truth.
func flag(v bool) string {
	if v {
		return "true"
	}
	return ""
}

// number is the query value of a count; 0 is left out.
func number(n uint16) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(int(n))
}

// moment is the query value of a time.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
