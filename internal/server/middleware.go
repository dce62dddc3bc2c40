package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// guard stands around every route: it bounds bodies, catches panics, and counts.
// An answer that a panic ends in the middle is broken off, so that the client sees it.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		seen := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			p, begun := recover(), seen.wrote
			if p != nil && p != http.ErrAbortHandler {
				s.log.Error("a request panicked", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				if !begun {
					writeFault(seen, fault.Internalf("strata failed in answering this request").Help("the daemon's log says where"))
				}
			}
			s.finish(r, seen, time.Since(started))
			if p == http.ErrAbortHandler || p != nil && begun {
				panic(http.ErrAbortHandler) // net/http ends the answer as if it were whole otherwise
			}
		}()
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &timedBody{ReadCloser: r.Body, control: http.NewResponseController(w), limit: s.bodyTimeout}
		}
		next.ServeHTTP(seen, r)
	})
}

// finish counts and logs one request.
func (s *Server) finish(r *http.Request, seen *recorder, took time.Duration) {
	pattern := r.Pattern
	if pattern == "/" || pattern == "" {
		pattern = "none"
	}
	s.metrics.request(pattern, seen.status, took, seen.stream)
	left := r.Context().Err() != nil // nobody reads that answer, and it is no failure
	if seen.status >= 400 && !left {
		s.metrics.failed(kindOf[seen.status])
	}
	level := slog.LevelDebug
	if seen.status >= 500 && kindOf[seen.status] == fault.Internal && !left { // the others are answers
		level = slog.LevelWarn
	}
	peer, _ := PeerOf(r.Context())
	said := []any{"method", r.Method, "path", r.URL.Path, "status", seen.status, "took", took, "uid", peer.UID, "pid", peer.PID}
	if len(seen.failure) > 0 {
		var failure api.Error
		_ = json.Unmarshal(seen.failure, &failure) // one that was too long has no message
		said = append(said, "error", failure.Message)
	}
	s.log.Log(r.Context(), level, "request", said...)
}

// kindOf is the table of package fault read the other way round.
var kindOf = func() map[int]fault.Kind {
	kinds := map[int]fault.Kind{}
	for _, kind := range fault.Kinds() {
		kinds[kind.HTTP()] = kind
	}
	return kinds
}()

// maxKept bounds what is kept of an answer for the log. Unit: bytes.
const maxKept = 16 << 10

// recorder remembers an answer's status, and the answer itself where it is an internal failure.
type recorder struct {
	http.ResponseWriter
	status  int
	wrote   bool
	stream  bool // how long it took tells nothing
	failure []byte
}

func (r *recorder) WriteHeader(status int) {
	if !r.wrote {
		r.status, r.wrote = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.wrote = true
	if r.status == http.StatusInternalServerError && len(r.failure)+len(p) <= maxKept {
		r.failure = append(r.failure, p...)
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach what is below.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// timedBody gives a sender so long for every piece of a body. The deadline is
// taken back at the end: while a handler works, net/http reads on to notice
// that the client went away, and a deadline that passes then would look like it.
// One that has passed stays, as net/http reads the rest of a body before it answers.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	limit   time.Duration
	patient bool // the sender may take as long as it likes
}

func (b *timedBody) Read(p []byte) (int, error) {
	if b.patient {
		return b.ReadCloser.Read(p)
	}
	_ = b.control.SetReadDeadline(time.Now().Add(b.limit))
	n, err := b.ReadCloser.Read(p)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

func indented(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
