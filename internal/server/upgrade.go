package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
)

// switchingTo is what an upgraded connection starts with.
func switchingTo(protocol string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol + "\r\n\r\n"
}

// maxFailure bounds the message of a failure frame. Unit: bytes.
const maxFailure = 16 << 10

// upgrade answers with the bare connection, whose descriptor serve hands on.
// What serve returns is told to the client in a frame. serve must not keep
// conn: it is closed afterwards.
func (s *Server) upgrade(serve func(ctx context.Context, conn *os.File) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		if !asks(r, stream.Protocol) {
			writeFault(w, fault.Invalidf("this route needs the header Upgrade: %s", stream.Protocol).At("Upgrade").Help("the strata CLI and Go client do this by themselves"))
			return
		}
		conn, err := bare(w)
		if err != nil {
			s.log.Debug("an upgrade failed", "path", r.URL.Path, "error", err)
			return
		}
		defer conn.Close()
		if seen, ok := w.(*recorder); ok {
			seen.status, seen.wrote, seen.stream = http.StatusSwitchingProtocols, true, true
		}
		if err := serve(ctx.Context(), conn); err != nil {
			s.metrics.failed(fault.KindOf(err))
			fail(conn, err)
		}
	}}
}

// asks tells whether a request wants to speak a protocol from here on.
func asks(r *http.Request, protocol string) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), protocol) &&
		strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade")
}

// bare takes the connection away from HTTP, answers 101, and returns its descriptor.
func bare(w http.ResponseWriter) (*os.File, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fault.Wrap(err, "take over the connection")
	}
	defer conn.Close() // the file is a duplicate
	_ = conn.SetDeadline(time.Time{})
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, refuseBare(conn, fault.Unablef("streams need a unix socket"))
	}
	if buffered.Reader.Buffered() > 0 {
		return nil, refuseBare(conn, fault.Invalidf("the client sent frames before the upgrade was answered").At("Upgrade"))
	}
	file, err := uc.File()
	if err != nil {
		return nil, refuseBare(conn, fault.Wrap(err, "take the connection's descriptor"))
	}
	if _, err := file.WriteString(switchingTo(stream.Protocol)); err != nil {
		_ = file.Close()
		return nil, fault.Wrap(err, "answer the upgrade")
	}
	return file, nil
}

// refuseBare answers on a connection that HTTP has let go of.
func refuseBare(conn net.Conn, err error) error {
	a := answerOf(err)
	text, _ := json.Marshal(a.wire)
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		a.status, http.StatusText(a.status), len(text), text)
	return err
}

// fail sends err as the last frame.
func fail(conn *os.File, err error) {
	wire := Wire(err)
	if len(wire.Message) > maxFailure {
		wire.Message = wire.Message[:maxFailure] + "..."
		wire.Also = nil
	}
	text, mErr := json.Marshal(wire)
	if mErr != nil || len(text) > stream.MaxPayload {
		text, _ = json.Marshal(api.Error{Kind: wire.Kind, Message: "the fault is too long to tell"})
	}
	_ = conn.SetWriteDeadline(time.Now().Add(headerTimeout))
	_ = stream.Write(conn, stream.Failure, text)
}
