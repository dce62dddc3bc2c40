package servertest

import (
	"context"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// Price implements server.Host: nothing was measured.
func (e *Engine) Price(context.Context) (api.Price, error) {
	return price(nil, false), nil
}

// MeasurePrice implements server.Host: zones cost twice the host, and guests cannot be had.
func (e *Engine) MeasurePrice(_ context.Context, r api.PriceRequest) (api.Price, error) {
	if r.Template == "no-such" {
		return api.Price{}, fault.Missingf("no template %q", r.Template).At("template")
	}
	e.Publish(api.Event{Type: "progress", Action: "measure", Progress: &api.Progress{Step: "measure", Item: "zone: cpu"}})
	return price([]api.PriceFigure{
		{Name: "start", Means: "first command", Unit: "ms", Inside: &api.PriceSample{Median: 12, Least: 10, Most: 14, Count: 3}},
		{Name: "cpu", Means: "arithmetic", Unit: "M/s", More: true, Times: 2, Inside: &api.PriceSample{Median: 50, Least: 40, Most: 60, Count: 3},
			Host: &api.PriceSample{Median: 100, Least: 90, Most: 110, Count: 3}},
		{Name: "kernel-memory", Means: "kernel", Unit: "MiB", Why: "it is not told"},
	}, r.Quick), nil
}

func price(figures []api.PriceFigure, quick bool) api.Price {
	host := api.PriceHost{Kernel: "6.18", CPU: "a processor", CPUs: 2, Version: "test"}
	zone := api.StratumPrice{Stratum: "zone", Line: "not measured", Figures: []api.PriceFigure{}}
	guest := zone
	guest.Stratum = "guest"
	if figures != nil {
		guest.LeftOut = "there is no QEMU here"
		zone.Measured, zone.Host, zone.Template, zone.Quick = time.Unix(1700000000, 0).UTC(), &host, "busybox", quick
		zone.Line, zone.Figures = "start 12 ms", figures
	}
	return api.Price{Host: host, Strata: []api.StratumPrice{zone, guest}}
}
