package server

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/strata-project/strata/api"
)

type PathQuery struct {
	EnvironmentRef
	Path string `query:"path" required:"true" minLength:"1" maxLength:"4096" doc:"Absolute path inside."`
}

// Upload is a body that is handed on as it comes.
type Upload struct{ content io.Reader }

// Resolve takes the body before anything reads it.
func (u *Upload) Resolve(ctx huma.Context) []error {
	r, _ := humago.Unwrap(ctx)
	if b, ok := r.Body.(*timedBody); ok {
		b.patient = true
	}
	u.content = r.Body
	return nil
}

const tarType = "application/x-tar"

// binary describes content that has no schema.
func binary(contentType string) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{contentType: {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
}

func (s *Server) fileRoutes() {
	get := route("copy-out", http.MethodGet, "/v1/environments/{ref}/files", "Copy a path out of an environment, as tar")
	get.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: binary(tarType)}}
	huma.Register(s.api, get, func(_ context.Context, in *PathQuery) (*huma.StreamResponse, error) {
		return s.download(func(ctx context.Context, w io.Writer) error { return s.engine.CopyOut(ctx, in.Ref, in.Path, w) }), nil
	})
	put := route("copy-in", http.MethodPut, "/v1/environments/{ref}/files", "Unpack a tar into a folder of an environment")
	put.RequestBody = &huma.RequestBody{Required: true, Content: binary(tarType)}
	huma.Register(s.api, put, func(ctx context.Context, in *struct {
		PathQuery
		Upload
	}) (*none, error) {
		return nil, s.engine.CopyIn(ctx, in.Ref, in.Path, in.content)
	})
	huma.Register(s.api, route("stat", http.MethodGet, "/v1/environments/{ref}/files/stat", "Say what a path inside is"),
		func(ctx context.Context, in *PathQuery) (*body[api.PathStat], error) {
			st, err := s.engine.StatPath(ctx, in.Ref, in.Path)
			return &body[api.PathStat]{st}, err
		})
}

// download streams what write gives; a fault before the first byte has a status
// of its own, a later one breaks the answer off.
func (s *Server) download(write func(context.Context, io.Writer) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		_, w := humago.Unwrap(ctx)
		out := &lateWriter{w: w}
		err := write(ctx.Context(), out)
		switch {
		case err == nil:
			out.begin()
		case out.stream == nil:
			writeFault(w, err)
		default:
			s.log.Warn("a download was broken off", "path", ctx.URL().Path, "error", err)
			_ = out.stream.flush() // so that a client sees an answer that breaks off, not none
			panic(http.ErrAbortHandler)
		}
	}}
}

// lateWriter answers 200 with the first byte.
type lateWriter struct {
	w      http.ResponseWriter
	stream *streamWriter
}

func (l *lateWriter) begin() {
	if l.stream == nil {
		l.stream = newStream(l.w, tarType)
	}
}

func (l *lateWriter) Write(p []byte) (int, error) {
	l.begin()
	return l.stream.Write(p)
}
