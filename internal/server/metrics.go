package server

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
)

// metrics are what GET /metrics shows. They stand in a registry of their own.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	faults   *prometheus.CounterVec
	starts   *prometheus.CounterVec
	startSec prometheus.Histogram
	happened *prometheus.CounterVec
}

func newMetrics(e Engine) *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "strata_http_requests_total", Help: "Requests answered, by route and status."}, []string{"route", "status"})
	m.latency = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "strata_http_request_seconds", Help: "Time to answer a request that is not a stream, by route.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5, 30}}, []string{"route"})
	m.faults = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "strata_failures_total", Help: "Requests that failed, by the fault's kind."}, []string{"kind"})
	m.starts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "strata_starts_total", Help: "Starts that were asked for, by result."}, []string{"result"})
	m.startSec = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "strata_start_seconds", Help: "Time that a start took until the main program ran.",
		Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30}})
	m.happened = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "strata_environment_events_total", Help: "What happened to environments, by action: start, die, oom and so on."}, []string{"action"})
	m.registry.MustRegister(m.requests, m.latency, m.faults, m.starts, m.startSec, m.happened,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &stock{engine: e}, &used{engine: e})
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

func (m *metrics) request(route string, status int, took time.Duration, stream bool) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if !stream {
		m.latency.WithLabelValues(route).Observe(took.Seconds())
	}
}

func (m *metrics) failed(kind fault.Kind) { m.faults.WithLabelValues(kind.String()).Inc() }

// start measures one start.
func (m *metrics) start(do func() error) error {
	began := time.Now()
	err := do()
	if err != nil {
		m.starts.WithLabelValues(fault.KindOf(err).String()).Inc()
		return err
	}
	m.starts.WithLabelValues("ok").Inc()
	m.startSec.Observe(time.Since(began).Seconds())
	return nil
}

// Watch counts what happens to environments until ctx ends.
func (s *Server) Watch(ctx context.Context) {
	for e := range s.engine.Subscribe(ctx, engine.Filter{Types: []string{"environment"}}) {
		s.metrics.happened.WithLabelValues(e.Action).Inc()
	}
}

// stock asks the engine at every scrape what there is.
type stock struct {
	engine Engine
	mu     sync.Mutex
}

var (
	environmentsDesc = prometheus.NewDesc("strata_environments", "Environments, by state.", []string{"state"}, nil)
	standbyDesc      = prometheus.NewDesc("strata_standby_machines", "Guests that stand by.", nil, nil)
	standbyImageDesc = prometheus.NewDesc("strata_standby_images", "Guests that were written down, of which others start as copies.", nil, nil)
	standbyBytesDesc = prometheus.NewDesc("strata_standby_bytes", "Memory that both hold.", nil, nil)
	templatesDesc    = prometheus.NewDesc("strata_templates", "Templates in the store.", nil, nil)
	bytesDesc        = prometheus.NewDesc("strata_template_bytes", "Bytes that the layers of all templates take, each layer once.", nil, nil)
)

// Describe names what Collect gives.
func (s *stock) Describe(ch chan<- *prometheus.Desc) {
	ch <- environmentsDesc
	ch <- templatesDesc
	ch <- standbyDesc
	ch <- standbyImageDesc
	ch <- standbyBytesDesc
	ch <- bytesDesc
}

// Collect asks the engine. What it cannot answer in time is left out.
func (s *stock) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := bounded(context.Background())
	defer cancel()
	info := s.engine.Info(ctx)
	var standby api.Standby
	if info.Standby != nil {
		standby = *info.Standby
	}
	ch <- prometheus.MustNewConstMetric(standbyDesc, prometheus.GaugeValue, float64(standby.Machines))
	ch <- prometheus.MustNewConstMetric(standbyImageDesc, prometheus.GaugeValue, float64(standby.Images))
	ch <- prometheus.MustNewConstMetric(standbyBytesDesc, prometheus.GaugeValue, float64(standby.Bytes))
	for state, n := range info.Environments {
		ch <- prometheus.MustNewConstMetric(environmentsDesc, prometheus.GaugeValue, float64(n), state)
	}
	templates, err := s.engine.Templates(ctx)
	if err != nil {
		return
	}
	layers := map[string]int64{}
	for _, t := range templates {
		for _, l := range t.Layers {
			layers[l.Digest] = l.Size
		}
	}
	var total int64
	for _, size := range layers {
		total += size
	}
	ch <- prometheus.MustNewConstMetric(templatesDesc, prometheus.GaugeValue, float64(len(templates)))
	ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(total))
}
