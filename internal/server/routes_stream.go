package server

import (
	"context"
	"net/http"
	"os"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
)

type logQuery struct {
	EnvironmentRef
	Since  time.Time `query:"since" doc:"Only what was written from then on."`
	Until  time.Time `query:"until" doc:"Only what was written before."`
	Tail   int       `query:"tail" default:"-1" minimum:"-1" doc:"Only the last lines; -1: all."`
	Follow bool      `query:"follow" doc:"Go on until the environment ends."`
	Source string    `query:"source" default:"program" enum:"program,console,kernel" doc:"Whose words: the main program's, or at strata with a kernel of their own the console's or the kernel's; kernel at a zone: what the host's kernel killed in it."`
}

// upgraded describes a route that answers 101.
func upgraded(id, path, summary string) huma.Operation {
	op := route(id, http.MethodPost, path, summary)
	op.Description = "Send `Connection: Upgrade` and `Upgrade: " + stream.Protocol + "`. After the answer 101 both sides send frames, " +
		"as docs/reference/streams.md has them; the last one is the exit status, or why there is none."
	op.Responses = map[string]*huma.Response{"101": {Description: "Frames follow."}}
	op.DefaultStatus = http.StatusSwitchingProtocols
	return op
}

func (s *Server) streamRoutes() {
	huma.Register(s.api, upgraded("attach", "/v1/environments/{ref}/attach", "Join the main program's standard streams"),
		func(_ context.Context, in *struct {
			EnvironmentRef
			Start bool   `query:"start" doc:"Start it too, so that nothing of its output is missed."`
			Rows  uint16 `query:"rows" doc:"Size of the caller's terminal, for a start."`
			Cols  uint16 `query:"cols" doc:"As rows."`
		}) (*huma.StreamResponse, error) {
			return s.upgrade(func(ctx context.Context, conn *os.File) error {
				if in.Start {
					return s.metrics.start(func() error {
						return s.engine.Start(ctx, in.Ref, &engine.Session{Conn: conn, Rows: in.Rows, Cols: in.Cols})
					})
				}
				return s.engine.Attach(ctx, in.Ref, conn)
			}), nil
		})
	huma.Register(s.api, upgraded("console", "/v1/environments/{ref}/console", "Join the console of a system with a kernel of its own"),
		func(_ context.Context, in *struct{ EnvironmentRef }) (*huma.StreamResponse, error) {
			return s.upgrade(func(ctx context.Context, conn *os.File) error {
				return s.engine.Console(ctx, in.Ref, conn)
			}), nil
		})
	exec := upgraded("exec", "/v1/environments/{ref}/exec", "Run a further program in a running environment")
	exec.Description += " With `detach` there is no upgrade: the answer is 204 once the program runs."
	huma.Register(s.api, exec,
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Detach bool `query:"detach" doc:"Leave it alone once it runs: its standard input is empty, and what it writes is dropped."`
			Body   api.Process
		}) (*huma.StreamResponse, error) {
			if in.Detach {
				if err := s.leaveAlone(ctx, in.Ref, in.Body); err != nil {
					return nil, err
				}
				return &huma.StreamResponse{Body: func(ctx huma.Context) { ctx.SetStatus(http.StatusNoContent) }}, nil
			}
			return s.upgrade(func(ctx context.Context, conn *os.File) error {
				return s.engine.Exec(ctx, in.Ref, in.Body, conn)
			}), nil
		})
	// Added to what stands there by now: with two answers of its own it would be told no failures.
	exec.Responses["204"] = &huma.Response{Description: "The program runs, with nobody at its streams."}

	logs := route("logs", http.MethodGet, "/v1/environments/{ref}/logs", "Read what an environment wrote, one LogLine of JSON per line")
	logs.Responses = map[string]*huma.Response{"200": {
		Description: "OK",
		Content: map[string]*huma.MediaType{"application/x-ndjson": {
			Schema: s.api.OpenAPI().Components.Schemas.Schema(typeOf[api.LogLine](), true, "LogLine"),
		}},
	}}
	huma.Register(s.api, logs, func(_ context.Context, in *logQuery) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(ctx huma.Context) { s.logs(ctx, in) }}, nil
	})
}

// leaveAlone runs a further program whose client is gone as soon as it runs.
func (s *Server) leaveAlone(ctx context.Context, ref string, p api.Process) error {
	if p.Stdin {
		return fault.Invalidf("nobody writes to a program that is left alone").At("stdin").Help("leave out stdin or detach")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fault.Internalf("make a socket pair: %w", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "client")
	defer theirs.Close()
	return s.engine.Exec(ctx, ref, p, theirs)
}

// logs answers 200 only once there is something to say, so that a fault found
// at once has a status of its own. A fault found later breaks the answer off, and
// so does the daemon's end, which is not the environment's.
func (s *Server) logs(ctx huma.Context, in *logQuery) {
	_, w := humago.Unwrap(ctx)
	var out *streamWriter
	begin := func() {
		if out == nil {
			out = newStream(w, "application/x-ndjson")
		}
	}
	o := engine.LogOptions{Since: in.Since, Until: in.Until, Tail: in.Tail, Follow: in.Follow, Source: in.Source}
	follow, stop := s.follow(ctx.Context())
	defer stop()
	err := s.engine.Logs(follow, in.Ref, o, func(l api.LogLine) error {
		begin()
		if err := out.line(l); err != nil || !in.Follow {
			return err
		}
		return out.flush()
	})
	if err == nil && follow.Err() != nil && ctx.Context().Err() == nil {
		err = fault.Busyf("the daemon ended while it sent the log").Help("the environment goes on: ask again once the daemon answers")
	}
	switch {
	case err == nil:
		begin()
		_ = out.flush()
	case out == nil:
		writeFault(w, err)
	case ctx.Context().Err() == nil:
		s.log.Debug("logs ended early", "environment", in.Ref, "error", err)
		_ = out.flush()             // the lines that were read hold
		panic(http.ErrAbortHandler) // the only way to let the client see it
	}
}
