package price

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/price/chart"
)

// Stale says what of the host changed between then and now that a stratum's price
// depends on; nothing where it still holds.
func Stale(stratum string, then, now api.PriceHost) []string {
	var all []string
	for _, fact := range []struct {
		name      string
		then, now string
		virtual   bool // zones do not depend on it
	}{
		{"the kernel", then.Kernel, now.Kernel, false},
		{"the processor", then.CPU, now.CPU, false},
		{"the number of processors", strconv.Itoa(then.CPUs), strconv.Itoa(now.CPUs), false},
		{"strata", then.Version, now.Version, false},
		{"QEMU", then.QEMU, now.QEMU, true},
		{"the accelerator", then.Accelerator, now.Accelerator, true},
	} {
		if fact.then != fact.now && !(fact.virtual && stratum == "zone") {
			all = append(all, fmt.Sprintf("%s was %s and is %s", fact.name, orNone(fact.then), orNone(fact.now)))
		}
	}
	return all
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

// Look returns p as it is to be read now: with its age, what made it stale, and its line.
func Look(p api.StratumPrice, host api.PriceHost, now time.Time) api.StratumPrice {
	if p.Measured.IsZero() || p.Host == nil {
		p.Line = NotMeasured
		return p
	}
	p.Age = max(0, int64(now.Sub(p.Measured).Seconds()))
	p.Stale = Stale(p.Stratum, *p.Host, host)
	p.Line = line(p)
	return p
}

// NotMeasured is the line of what has no price.
const NotMeasured = "not measured"

// line is a price in words, for plans.
func line(p api.StratumPrice) string {
	var words []string
	add := func(what, name string) {
		if f := find(p, name); f != nil {
			words = append(words, what+" "+chart.Text(f.Inside.Median, f.Unit))
		}
	}
	if find(p, StartWarm) != nil {
		add("start", StartWarm)
		add("cold", Start)
	} else {
		add("start", Start)
	}
	add("idle", Memory)
	for _, part := range [][2]string{{"cpu", "cpu"}, {"system call", "syscall"}, {"fsync", "disk-fsync"}, {"network", outgoing}} {
		if f := find(p, part[1]); f != nil && f.Times > 0 {
			words = append(words, part[0]+" "+chart.Times(f.Times))
		}
	}
	if words == nil {
		return NotMeasured
	}
	how := "measured " + p.Measured.UTC().Format("2006-01-02")
	if p.Stratum != "zone" && p.Host.Accelerator != "" {
		how += " by " + p.Host.Accelerator
	}
	if p.Stale != nil {
		how += ", stale: " + strings.Join(p.Stale, ", ")
	}
	return strings.Join(words, ", ") + " (" + how + ")"
}

// find returns a figure that was measured.
func find(p api.StratumPrice, name string) *api.PriceFigure {
	for i := range p.Figures {
		if f := &p.Figures[i]; f.Name == name && f.Inside != nil {
			return f
		}
	}
	return nil
}
