package server

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/unit"
)

// used tells at every scrape what the host and environments used a moment ago, as the
// engine's sampler saw it.
type used struct{ engine Engine }

// gauge is one figure of every environment.
type gauge struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*api.Usage) float64
}

func figure(name, help string, kind prometheus.ValueType, of func(*api.Usage) float64) gauge {
	return gauge{prometheus.NewDesc("strata_environment_"+name, help, []string{"environment", "stratum"}, nil), kind, of}
}

var gauges = []gauge{
	figure("cpu_seconds_total", "Processor time since it started.", prometheus.CounterValue, func(u *api.Usage) float64 { return time.Duration(u.CPUTime).Seconds() }),
	figure("cpu_throttled_seconds_total", "Time that it was held up by its processor limit since it started.", prometheus.CounterValue, func(u *api.Usage) float64 { return time.Duration(u.Throttled).Seconds() }),
	figure("cpu_limit_cores", "Processor limit; 0: none.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.CPULimit) / 1000 }),
	figure("cpu_guarantee_cores", "Processors guaranteed to it; 0: none.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.CPUGuarantee) / 1000 }),
	figure("memory_bytes", "Memory that the host holds for it.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.Memory) }),
	figure("memory_limit_bytes", "Memory limit of its programs; 0: none. A kernel of its own and QEMU are beside it.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.MemoryLimit) }),
	figure("memory_guarantee_bytes", "Memory guaranteed to its programs; 0: none.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.MemoryGuarantee) }),
	figure("memory_most_bytes", "The most memory that the host was seen to hold for it since it started.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.MemoryMost) }),
	figure("processes", "Processes and threads.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.Processes) }),
	figure("processes_limit", "Most processes and threads; 0: no limit.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.ProcessesLimit) }),
	figure("disk_bytes", "What the private disk takes on the host.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.Disk) }),
	figure("disk_limit_bytes", "Size of the private disk.", prometheus.GaugeValue, func(u *api.Usage) float64 { return float64(u.DiskLimit) }),
	figure("network_receive_bytes_total", "Received since it started.", prometheus.CounterValue, func(u *api.Usage) float64 { return float64(u.ReceivedTotal) }),
	figure("network_transmit_bytes_total", "Sent since it started.", prometheus.CounterValue, func(u *api.Usage) float64 { return float64(u.SentTotal) }),
}

var (
	hostMemoryDesc   = prometheus.NewDesc("strata_host_memory_bytes", "Memory of the host, by what it is: used, shared, guaranteed, free.", []string{"kind"}, nil)
	roomMemoryDesc   = prometheus.NewDesc("strata_host_capacity_memory_bytes", "Memory that can be guaranteed, by what it is: guaranteed, overhead (strata's own), free.", []string{"kind"}, nil)
	roomCPUsDesc     = prometheus.NewDesc("strata_host_capacity_cores", "Processors that can be guaranteed, by what they are: guaranteed, free.", []string{"kind"}, nil)
	waitingDesc      = prometheus.NewDesc("strata_host_capacity_waiting", "How many wait for room.", nil, nil)
	hostPressureDesc = prometheus.NewDesc("strata_host_pressure_percent", "Share of the last 10 seconds in which something waited.", []string{"resource", "who"}, nil)
)

// Describe names what Collect gives.
func (u *used) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range gauges {
		ch <- g.desc
	}
	for _, d := range []*prometheus.Desc{hostMemoryDesc, hostPressureDesc, roomMemoryDesc, roomCPUsDesc, waitingDesc} {
		ch <- d
	}
}

// Collect asks the engine, which looks at nothing but memory.
func (u *used) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := bounded(context.Background())
	defer cancel()
	report, err := u.engine.Usage(ctx, nil, time.Time{})
	if err != nil {
		return
	}
	for i := range report.Environments {
		e := &report.Environments[i]
		for _, g := range gauges {
			ch <- prometheus.MustNewConstMetric(g.desc, g.kind, g.of(e), e.Environment, e.Stratum)
		}
	}
	room := u.engine.Capacity(ctx)
	for kind, n := range map[string]unit.Size{"guaranteed": room.Memory.Guaranteed, "overhead": room.Memory.Overhead, "free": room.Memory.Free} {
		ch <- prometheus.MustNewConstMetric(roomMemoryDesc, prometheus.GaugeValue, float64(n), kind)
	}
	for kind, n := range map[string]unit.CPUs{"guaranteed": room.CPUs.Guaranteed, "free": room.CPUs.Free} {
		ch <- prometheus.MustNewConstMetric(roomCPUsDesc, prometheus.GaugeValue, float64(n)/1000, kind)
	}
	ch <- prometheus.MustNewConstMetric(waitingDesc, prometheus.GaugeValue, float64(len(room.Waiting)))
	h := report.Host
	for kind, n := range map[string]int64{"used": h.MemoryUsed, "shared": h.MemoryShared, "guaranteed": h.MemoryGuaranteed, "free": h.MemoryFree} {
		ch <- prometheus.MustNewConstMetric(hostMemoryDesc, prometheus.GaugeValue, float64(n), kind)
	}
	for name, p := range h.Pressure {
		ch <- prometheus.MustNewConstMetric(hostPressureDesc, prometheus.GaugeValue, p.Some, name, "some")
		ch <- prometheus.MustNewConstMetric(hostPressureDesc, prometheus.GaugeValue, p.Full, name, "full")
	}
}
