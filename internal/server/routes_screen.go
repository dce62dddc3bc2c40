package server

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"time"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// file is an answer that is no JSON.
type file struct {
	Type  string `header:"Content-Type"`
	Cache string `header:"Cache-Control"`
	Body  []byte
}

const (
	pngType  = "image/png"
	textType = "text/plain; charset=utf-8"
)

type screenWait struct {
	EnvironmentRef
	Pattern string `query:"pattern" required:"true" minLength:"1" maxLength:"1024" doc:"Regular expression (RE2); ^ and $ are the begin and end of a line."`
	Timeout string `query:"timeout" maxLength:"32" doc:"How long at most, such as 5m. Default: as long as the caller stays."`
}

func (s *Server) screenRoutes() {
	shown := func(id, path, summary, contentType string, take func(ctx context.Context, ref string) ([]byte, error)) {
		op := route(id, http.MethodGet, "/v1/environments/{ref}/"+path, summary)
		op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: binary(contentType)}}
		huma.Register(s.api, op, func(ctx context.Context, in *EnvironmentRef) (*file, error) {
			ctx, cancel := bounded(ctx)
			defer cancel()
			content, err := take(ctx, in.Ref)
			return &file{contentType, "no-store", content}, err
		})
	}
	shown("screen", "screen.png", "Take a picture of a machine's screen", pngType, func(ctx context.Context, ref string) ([]byte, error) {
		screen, err := s.engine.Screen(ctx, ref)
		if err != nil {
			return nil, err
		}
		return screen.PNG(ctx)
	})
	shown("screen-text", "screen.txt", "Read the text of a machine's screen", textType, func(ctx context.Context, ref string) ([]byte, error) {
		screen, err := s.engine.Screen(ctx, ref)
		if err != nil {
			return nil, err
		}
		text, err := screen.Text(ctx)
		return []byte(text), err
	})
	huma.Register(s.api, route("screen-wait", http.MethodPost, "/v1/environments/{ref}/screen/wait", "Wait until the text of a machine's screen matches"), s.waitScreen)
	huma.Register(s.api, route("type", http.MethodPost, "/v1/environments/{ref}/type", "Type on a machine's keyboard"),
		func(ctx context.Context, in *struct {
			EnvironmentRef
			Body api.Typing
		}) (*none, error) {
			return nil, s.typeKeys(ctx, in.Ref, in.Body)
		})
	vnc := route("vnc", http.MethodGet, "/v1/environments/{ref}/vnc", "See a machine's screen and use its keyboard and mouse")
	vnc.Description = "Send `Connection: Upgrade` and `Upgrade: " + api.RFBProtocol + "`, or open it as a websocket with the subprotocol binary. " +
		"Both sides then speak RFB (RFC 6143) with the security type None."
	vnc.Responses = map[string]*huma.Response{"101": {Description: "RFB follows."}}
	vnc.DefaultStatus = http.StatusSwitchingProtocols
	huma.Register(s.api, vnc, func(_ context.Context, in *EnvironmentRef) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(ctx huma.Context) {
			r, w := humago.Unwrap(ctx)
			if err := s.vnc(w, r, in.Ref); err != nil {
				writeFault(w, err)
			}
		}}, nil
	})
}

// manyLines makes ^ and $ the begin and end of each line.
const manyLines = "(?m)"

func (s *Server) waitScreen(ctx context.Context, in *screenWait) (*body[api.ScreenMatch], error) {
	_, err := regexp.Compile(in.Pattern) // alone, so that its fault names what was written
	pattern, whole := regexp.Compile(manyLines + in.Pattern)
	if err := cmp.Or(err, whole); err != nil {
		return nil, fault.Invalidf("%q is no regular expression: %w", in.Pattern, err).At("pattern").Help("see https://golang.org/s/re2syntax")
	}
	follow, stop := s.follow(ctx)
	defer stop()
	if in.Timeout != "" {
		d, err := unit.ParseDuration(in.Timeout)
		if err != nil {
			return nil, fault.All(err)[0].At("timeout")
		}
		var cancel context.CancelFunc
		follow, cancel = context.WithTimeout(follow, time.Duration(d))
		defer cancel()
	}
	screen, err := s.engine.Screen(follow, in.Ref)
	if err != nil {
		return nil, err
	}
	text, match, err := screen.Wait(follow, pattern)
	return &body[api.ScreenMatch]{api.ScreenMatch{Text: text, Match: nonNil(match)}}, err
}

func (s *Server) typeKeys(ctx context.Context, ref string, typing api.Typing) error {
	if typing.Text == "" && len(typing.Keys) == 0 {
		return fault.Invalidf("there is nothing to type").At("text").Help("send text, keys, or both")
	}
	screen, err := s.engine.Screen(ctx, ref)
	if err != nil {
		return err
	}
	if typing.Text != "" {
		if err := screen.Type(ctx, typing.Text, time.Duration(typing.Pace)); err != nil {
			return err
		}
	}
	if len(typing.Keys) == 0 {
		return nil
	}
	return screen.Press(ctx, typing.Keys, time.Duration(typing.Pace))
}

// vnc joins a client to a screen until one of them leaves. A fault that it returns
// is still to be answered.
func (s *Server) vnc(w http.ResponseWriter, r *http.Request, ref string) error {
	socket := asks(r, "websocket")
	if !socket && !asks(r, api.RFBProtocol) {
		return fault.Invalidf("this route needs the header Upgrade: %s or websocket", api.RFBProtocol).At("Upgrade").
			Help("the strata CLI and a browser's console do this by themselves: strata vnc NAME")
	}
	ctx, stop := s.follow(r.Context())
	defer stop()
	screen, err := s.engine.Screen(ctx, ref)
	if err != nil {
		return err
	}
	machine, err := screen.Connect(ctx)
	if err != nil {
		return err
	}
	defer machine.Close()
	seen, _ := w.(*recorder)
	if seen != nil {
		seen.stream = true
	}
	viewer, err := accept(ctx, w, r, socket)
	if seen != nil {
		seen.wrote = true // by whoever took the connection over
	}
	if err != nil {
		s.log.Debug("a viewer was not joined", "path", r.URL.Path, "error", err)
		return nil // it was answered
	}
	if seen != nil {
		seen.status = http.StatusSwitchingProtocols
	}
	join(ctx, viewer, machine)
	return nil
}

// accept answers an upgrade. A page of another origin than ours is refused by the
// websocket's own rule, since browsers would let it ask.
func accept(ctx context.Context, w http.ResponseWriter, r *http.Request, socket bool) (net.Conn, error) {
	if !socket {
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return nil, fault.Wrap(err, "take over the connection")
		}
		_ = conn.SetDeadline(time.Now().Add(headerTimeout))
		if buffered.Reader.Buffered() > 0 {
			defer conn.Close()
			return nil, refuseBare(conn, fault.Invalidf("the client spoke before the upgrade was answered").At("Upgrade"))
		}
		if _, err := io.WriteString(conn, switchingTo(api.RFBProtocol)); err != nil {
			conn.Close()
			return nil, fault.Wrap(err, "answer the upgrade")
		}
		_ = conn.SetDeadline(time.Time{})
		return conn, nil
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"binary"}})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxMessage)
	return websocket.NetConn(ctx, conn, websocket.MessageBinary), nil
}

// maxMessage bounds one message of a browser's: a paste is the longest. Unit: bytes.
const maxMessage = 1 << 20

// join copies both ways until one side ends, or ctx does.
func join(ctx context.Context, viewer, machine net.Conn) {
	end := context.AfterFunc(ctx, func() { _ = viewer.Close(); _ = machine.Close() })
	defer end()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(machine, viewer)
		_ = machine.Close()
	}()
	_, _ = io.Copy(viewer, machine)
	_ = viewer.Close()
	_ = machine.Close()
	<-done
}
