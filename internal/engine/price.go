package engine

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/planner"
	"github.com/strata-project/strata/internal/price"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/stratum"
)

// pricesName is the file of kept prices in the state folder.
const pricesName = "price.json"

// factsHold is how long facts of the host that prices depend on are not looked at
// again: plans are to take no time, and these change by hand only.
const factsHold = 15 * time.Second

// prices is what the engine knows of prices. mu is a leaf but for looking at the host.
type prices struct {
	book *price.Book
	one  chan struct{} // held while something is measured: two at a time would measure each other

	mu     sync.Mutex
	host   api.PriceHost
	looked time.Time
}

func newPrices(path string) *prices {
	return &prices{book: price.Open(path), one: make(chan struct{}, 1)}
}

// Price returns what the strata cost as they were measured last.
func (e *Engine) Price(ctx context.Context) (api.Price, error) {
	return e.priced(e.priceHost(ctx, factsHold), nil), nil
}

// priced is every stratum's price as it is to be read now; out says why some were not
// measured this time.
func (e *Engine) priced(host api.PriceHost, out map[string]string) api.Price {
	kept := e.keptPrices()
	p := api.Price{Host: host, Strata: []api.StratumPrice{}}
	for _, at := range e.strata() {
		one := kept[at]
		one.Stratum, one.LeftOut = at, out[at]
		one = price.Look(one, host, time.Now())
		if one.Figures == nil {
			one.Figures = []api.PriceFigure{}
		}
		p.Strata = append(p.Strata, one)
	}
	return p
}

func (e *Engine) keptPrices() map[string]api.StratumPrice {
	kept, err := e.prices.book.All()
	if err != nil {
		e.log.Warn("kept prices not read", "error", err)
	}
	return kept
}

// priceLines are the kept prices in words, by stratum. Where none is kept it looks
// at nothing.
func (e *Engine) priceLines(ctx context.Context) map[string]string {
	if len(e.keptPrices()) == 0 {
		return nil
	}
	lines := map[string]string{}
	for _, s := range e.priced(e.priceHost(ctx, factsHold), nil).Strata {
		lines[s.Stratum] = s.Line
	}
	return lines
}

// priceNow puts the prices of today into a choice that was made earlier.
func (e *Engine) priceNow(ctx context.Context, c api.Choice) api.Choice {
	lines := e.priceLines(ctx)
	now := func(at string) string { return first(lines[at], planner.NotMeasured) }
	c.Price, c.Others = now(c.Stratum), slices.Clone(c.Others)
	for i := range c.Others {
		c.Others[i].Price = now(c.Others[i].Stratum)
	}
	return c
}

// priceHost are the facts of the host that prices depend on, at most so old.
func (e *Engine) priceHost(ctx context.Context, old time.Duration) api.PriceHost {
	p := e.prices
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.looked.IsZero() && time.Since(p.looked) < old {
		return p.host
	}
	h := api.PriceHost{Kernel: release(), CPU: processorName(), CPUs: runtime.NumCPU(), Version: e.o.Version}
	for _, d := range e.o.Drivers {
		prober, ok := d.(stratum.Prober)
		if !ok {
			continue
		}
		if q, err := qemu.Find(ctx); err == nil {
			h.QEMU = q.Version
		}
		if kvm, _, err := prober.Probe(ctx); err == nil {
			h.Accelerator = qemu.TCG
			if kvm {
				h.Accelerator = qemu.KVM
			}
		}
		break // they have one QEMU
	}
	if ctx.Err() == nil {
		p.host, p.looked = h, time.Now()
	}
	return h
}

// processorName is what the first processor calls itself. Source: proc_cpuinfo(5).
var processorName = sync.OnceValue(func() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
})

// MeasurePrice measures what strata cost on this host, one after the other, each in
// turn with the bare host, and keeps what was measured. It makes environments of its own
// and removes them. What it is at is told as progress of ctx's operation.
// Kinds: Invalid, Missing (template), Busy (something is being measured).
func (e *Engine) MeasurePrice(ctx context.Context, r api.PriceRequest) (api.Price, error) {
	if err := e.open(); err != nil {
		return api.Price{}, err
	}
	wanted, err := e.pricedStrata(r.Strata)
	if err != nil {
		return api.Price{}, err
	}
	r.Template = first(r.Template, "busybox")
	t, err := e.o.Templates.Get(r.Template)
	if fault.Is(err, fault.Missing) && builtIn(r.Template) {
		t, err = e.o.Templates.Busybox(ctx)
	}
	if err != nil {
		return api.Price{}, err
	}
	select {
	case e.prices.one <- struct{}{}:
		defer func() { <-e.prices.one }()
	default:
		return api.Price{}, fault.Busyf("the price is being measured already").Help("wait until that is done: strata events")
	}
	ctx, cancel := e.until(ctx)
	defer cancel()
	limited, end := context.WithTimeout(ctx, price.Limit(r.Quick))
	defer end()
	host, out := e.priceHost(ctx, 0), map[string]string{}
	lacks := e.facts(ctx, api.Spec{Stratum: stratum.Machine}, t).Lacks
	wanted = slices.DeleteFunc(wanted, func(at string) bool { // they take no share of the time
		if lacks[at] != nil {
			out[at] = withHint(lacks[at])
		}
		return lacks[at] != nil
	})
	for i, at := range wanted {
		if err := e.measure(limited, r, host, wanted[i:]); err != nil {
			out[at] = withHint(fault.All(err)[0])
		}
		if err := ctx.Err(); err != nil { // the client left, or the engine ends
			return api.Price{}, err
		}
	}
	return e.priced(host, out), nil
}

func withHint(f *fault.Error) string {
	if f.Hint == "" {
		return f.Message
	}
	return f.Message + " (" + f.Hint + ")"
}

// pricedStrata are those asked for, shallowest first, or all. Kinds: Invalid.
func (e *Engine) pricedStrata(asked []string) ([]string, error) {
	served := e.strata()
	if len(asked) == 0 {
		return served, nil
	}
	var bad []error
	for i, at := range asked {
		if !slices.Contains(served, at) {
			bad = append(bad, fault.Invalidf("%q is not a stratum that is served here", at).At("strata["+itoa(i)+"]").Help("served: %s", strings.Join(served, ", ")))
		}
	}
	return slices.DeleteFunc(served, func(at string) bool { return !slices.Contains(asked, at) }), fault.Join(bad...)
}

// measure measures the first of strata, with its share of the time that ctx leaves for
// all of them, and keeps the price.
func (e *Engine) measure(ctx context.Context, r api.PriceRequest, host api.PriceHost, strata []string) error {
	at := strata[0]
	end, _ := ctx.Deadline()
	share := price.Share(time.Until(end), strata)
	if share <= 0 {
		return fault.Busyf("the time was up")
	}
	ctx, cancel := context.WithTimeout(ctx, share)
	defer cancel()
	bare, err := newBareHost(e.o.Places.State)
	if err != nil {
		return err
	}
	tell, begin := e.progress(ctx), time.Now()
	start := func(ctx context.Context, cold bool) (price.Subject, error) {
		return e.newSubject(ctx, r.Template, at, cold)
	}
	figures, err := price.Measure(ctx, bare, price.Stratum{Name: at, Start: start}, r.Quick,
		func(what string) { tell(api.Progress{Step: "measure", Item: at + ": " + what}) })
	if err != nil && ctx.Err() != nil {
		return fault.Busyf("it did not start within its share of the time, %v", share.Round(time.Second)).Help("measure it alone, or without --quick: strata price --stratum %s", at)
	}
	if err != nil {
		return err
	}
	return e.prices.book.Keep(api.StratumPrice{Stratum: at, Measured: time.Now().UTC(), Took: time.Since(begin).Seconds(), Quick: r.Quick,
		Template: r.Template, Host: &host, Figures: figures})
}
