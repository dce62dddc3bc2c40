package server

import (
	"context"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/version"
	"github.com/strata-project/strata/internal/web"
)

// APIVersion is the version of the REST interface, the first part of every route.
const APIVersion = "v1"

// Bounds of a request.
const (
	headerTimeout = 10 * time.Second // to send the headers
	bodyTimeout   = 30 * time.Second // to send a piece of a JSON body
	idleTimeout   = 2 * time.Minute  // between two requests of one connection
	maxHeader     = 16 << 10         // bytes of headers
	maxBody       = 4 << 20          // bytes of a JSON body: environment.MaxArguments, each byte escaped
	streamTimeout = time.Minute      // for a reader of a stream to take a piece
)

// Server answers requests on behalf of an engine. It is safe for concurrent use.
type Server struct {
	engine  Engine
	log     *slog.Logger
	mux     *http.ServeMux
	api     huma.API
	metrics *metrics

	bodyTimeout time.Duration

	mu      sync.Mutex // a leaf
	ended   bool
	follows map[*context.CancelFunc]struct{} // requests that would go on for ever
}

// New returns a server of e.
func New(e Engine, log *slog.Logger) *Server {
	ownFaults()
	s := &Server{engine: e, log: log, mux: http.NewServeMux(), bodyTimeout: bodyTimeout, follows: map[*context.CancelFunc]struct{}{}}
	s.metrics = newMetrics(e)
	s.api = humago.New(s.mux, config())
	s.api.UseMiddleware(s.operation)
	s.hostRoutes()
	s.environmentRoutes()
	s.observeRoutes()
	s.lifecycleRoutes()
	s.deviceRoutes()
	s.moveRoutes()
	s.streamRoutes()
	s.screenRoutes()
	s.fileRoutes()
	s.templateRoutes()
	s.kernelRoutes()
	s.priceRoutes()
	s.networkRoutes()
	s.mux.Handle("GET /metrics", s.metrics.handler())
	web.Route(s.mux)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeFault(w, fault.Missingf("%s %s is not a route of this daemon (%s)", r.Method, r.URL.Path, version.Version).
			Help("the routes are listed at /openapi.json; where a newer strata asks, restart the daemon: systemctl try-restart strata.service"))
	})
	return s
}

// Handler returns what answers requests.
func (s *Server) Handler() http.Handler { return s.guard(s.mux) }

// HTTP returns a server with strata's bounds, ready to serve a listener.
func (s *Server) HTTP() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// End ends the requests that would go on for ever: followers of events and logs,
// and waits. http.Server.Shutdown lets the others finish.
func (s *Server) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for cancel := range s.follows {
		(*cancel)()
	}
}

// follow returns a context that End ends too.
func (s *Server) follow(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		cancel()
	}
	key := &cancel
	s.follows[key] = struct{}{}
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.follows, key)
	}
}

// OpenAPI returns the description of the routes, indented.
func (s *Server) OpenAPI() ([]byte, error) { return indented(s.api.OpenAPI()) }

func config() huma.Config {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	registry.RegisterTypeAlias(reflect.TypeFor[unit.Size](), reflect.TypeFor[sizeSchema]())
	registry.RegisterTypeAlias(reflect.TypeFor[unit.CPUs](), reflect.TypeFor[cpusSchema]())
	registry.RegisterTypeAlias(reflect.TypeFor[unit.Duration](), reflect.TypeFor[durationSchema]())
	registry.RegisterTypeAlias(reflect.TypeFor[answer](), reflect.TypeFor[api.Error]())
	c := huma.DefaultConfig("strata", APIVersion)
	c.OpenAPI.Components.Schemas = registry
	c.OpenAPI.Info.Description = "Environments from one template at three depths. Served on a unix socket; " +
		"whoever may open that socket is as powerful as root."
	c.CreateHooks = nil
	c.DocsPath, c.SchemasPath = "", ""
	c.RejectUnknownQueryParameters = true
	c.Formats = map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat}
	return c
}

// The quantities of package unit, as the schema has them.
type (
	sizeSchema     struct{}
	cpusSchema     struct{}
	durationSchema struct{}
)

func (sizeSchema) Schema(huma.Registry) *huma.Schema {
	return quantity("size", huma.TypeInteger, `^\s*[0-9]+(\.[0-9]+)?([KMGTPkmgtp]([Ii]?[Bb])?|[Bb])?\s*$`, float64(unit.MaxSize))
}

func (cpusSchema) Schema(huma.Registry) *huma.Schema {
	return quantity("cpus", huma.TypeNumber, `^\s*[0-9]+(\.[0-9]*)?\s*$`, unit.MaxCPUs)
}

func (durationSchema) Schema(huma.Registry) *huma.Schema {
	return quantity("duration", huma.TypeNumber, `^([0-9.]+(ns|us|µs|ms|s|m|h)?)+$`, 1e9)
}

// quantity is a number, or text in strata's way of writing it.
func quantity(title, number, pattern string, most float64) *huma.Schema {
	zero := 0.0
	s := &huma.Schema{Title: title, AnyOf: []*huma.Schema{
		{Type: number, Minimum: &zero, Maximum: &most},
		{Type: huma.TypeString, Pattern: pattern, PatternDescription: title},
	}}
	for _, one := range s.AnyOf {
		one.PrecomputeMessages()
	}
	return s
}

// operation carries the schemas and a caller's operation id into the context.
func (s *Server) operation(ctx huma.Context, next func(huma.Context)) {
	ctx = huma.WithValue(ctx, registryKey{}, s.api.OpenAPI().Components.Schemas)
	if id := ctx.Header(api.OperationHeader); id != "" {
		if !goodOperation(id) {
			a := answerOf(fault.Invalidf("%q is not an operation id", id).At(api.OperationHeader).Help("send 1 to 64 letters, digits or dashes"))
			_ = huma.WriteErr(s.api, ctx, a.status, a.wire.Message, asFault(a.wire))
			return
		}
		ctx = huma.WithContext(ctx, engine.WithOperation(ctx.Context(), id))
	}
	next(ctx)
}

func asFault(e api.Error) error {
	kind, _ := fault.ParseKind(e.Kind)
	return &fault.Error{Kind: kind, Message: e.Message, Field: e.Field, Hint: e.Hint}
}

func goodOperation(id string) bool {
	return len(id) <= 64 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}

// route fills in what every operation has in common.
func route(id, method, path, summary string) huma.Operation {
	tag, _, _ := strings.Cut(strings.TrimPrefix(path, "/v1/"), "/")
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag},
		MaxBodyBytes: maxBody, BodyReadTimeout: -1, // the guard's own bound holds
	}
}

// none is an answer without a body.
type none struct{}

// body is an answer that is one value.
type body[T any] struct{ Body T }

// bounded returns a context for a question that must not hang.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 10*time.Second)
}
