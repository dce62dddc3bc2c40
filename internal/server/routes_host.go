package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
)

type eventQuery struct {
	Since     time.Time `query:"since" doc:"Also what happened from then on, as far as it is remembered."`
	Until     time.Time `query:"until" doc:"The stream ends then; at once where that is past, after what has happened."`
	Type      []string  `query:"type,explode" enum:"environment,template,kernel,network,progress,daemon" maxItems:"8" doc:"Only these types."`
	Name      []string  `query:"name,explode" maxItems:"64" doc:"Only of these names or ids."`
	Operation []string  `query:"operation,explode" maxItems:"64" doc:"Only of these operations."`
}

func (s *Server) hostRoutes() {
	huma.Register(s.api, route("info", http.MethodGet, "/v1/info", "Say what this daemon is"),
		func(ctx context.Context, _ *struct{}) (*body[api.Info], error) {
			return &body[api.Info]{s.engine.Info(ctx)}, nil
		})
	huma.Register(s.api, route("host-check", http.MethodGet, "/v1/host/check", "Probe what strata needs of this host"),
		func(ctx context.Context, _ *struct{}) (*body[[]api.Finding], error) {
			return &body[[]api.Finding]{nonNil(s.engine.HostCheck(ctx))}, nil
		})
	huma.Register(s.api, route("host-capacity", http.MethodGet, "/v1/host/capacity", "Show what the host can guarantee, and what of it is guaranteed"),
		func(ctx context.Context, _ *struct{}) (*body[api.Capacity], error) {
			return &body[api.Capacity]{s.engine.Capacity(ctx)}, nil
		})
	huma.Register(s.api, route("needs", http.MethodGet, "/v1/needs", "List the needs that strata knows"),
		func(ctx context.Context, _ *struct{}) (*body[[]api.Need], error) {
			return &body[[]api.Need]{nonNil(s.engine.Needs(ctx))}, nil
		})
	huma.Register(s.api, route("system-reset", http.MethodPost, "/v1/system/reset", "Stop and remove every environment, and all that is left of them"),
		func(ctx context.Context, _ *struct{}) (*none, error) { return nil, s.engine.DestroyAll(ctx) })

	op := route("events", http.MethodGet, "/v1/events", "Follow what happens, as server-sent events")
	op.Description = "Each event is a `data:` line with one Event as JSON. A reader that is too slow loses the oldest, and is told how many by an event of type daemon."
	op.Responses = map[string]*huma.Response{"200": {
		Description: "OK",
		Content: map[string]*huma.MediaType{"text/event-stream": {
			Schema: s.api.OpenAPI().Components.Schemas.Schema(typeOf[api.Event](), true, "Event"),
		}},
	}}
	huma.Register(s.api, op, s.events)
}

func (s *Server) events(ctx context.Context, in *eventQuery) (*huma.StreamResponse, error) {
	ctx, stop := s.follow(ctx)
	events := s.engine.Subscribe(ctx, engine.Filter{Since: in.Since, Until: in.Until, Types: in.Type, Names: in.Name, Operations: in.Operation})
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer stop()
		_, w := humago.Unwrap(ctx)
		out := newStream(w, "text/event-stream")
		if out.flush() != nil {
			return
		}
		for e := range events {
			if out.event(e) != nil {
				return
			}
		}
	}}, nil
}

// streamWriter writes an answer in pieces, each within streamTimeout.
type streamWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buf     bytes.Buffer
	encode  *json.Encoder
}

func newStream(w http.ResponseWriter, contentType string) *streamWriter {
	if seen, ok := w.(*recorder); ok {
		seen.stream = true
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	s := &streamWriter{w: w, control: http.NewResponseController(w)}
	s.encode = json.NewEncoder(&s.buf)
	s.encode.SetEscapeHTML(false)
	return s
}

func (s *streamWriter) flush() error {
	s.deadline()
	if err := s.control.Flush(); err != nil {
		return fault.Wrap(err, "send")
	}
	return nil
}

func (s *streamWriter) deadline() { _ = s.control.SetWriteDeadline(time.Now().Add(streamTimeout)) }

// Write sends p as it is.
func (s *streamWriter) Write(p []byte) (int, error) {
	s.deadline()
	return s.w.Write(p)
}

// event sends one server-sent event.
func (s *streamWriter) event(v any) error {
	s.buf.Reset()
	s.buf.WriteString("data: ")
	if err := s.encode.Encode(v); err != nil { // it ends the line itself
		return err
	}
	s.buf.WriteByte('\n')
	if _, err := s.Write(s.buf.Bytes()); err != nil {
		return err
	}
	return s.flush()
}

// line sends one value as a line of JSON.
func (s *streamWriter) line(v any) error {
	s.buf.Reset()
	if err := s.encode.Encode(v); err != nil {
		return err
	}
	_, err := s.Write(s.buf.Bytes())
	return err
}
