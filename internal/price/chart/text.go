package chart

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
)

// larger are units to change over to where a figure is large. Factors of 1000 but for MiB.
var larger = map[string]struct {
	unit string
	by   float64
}{
	"ns": {"µs", 1000}, "µs": {"ms", 1000}, "ms": {"s", 1000}, "MB/s": {"GB/s", 1000}, "MiB": {"GiB", 1024},
}

// Text writes a figure with its unit, in three digits.
func Text(v float64, unit string) string {
	for {
		next, ok := larger[unit]
		if !ok || math.Abs(v) < next.by {
			break
		}
		v, unit = v/next.by, next.unit
	}
	text := digits(v)
	if strings.HasPrefix(unit, "/") {
		return text + unit
	}
	return text + " " + unit
}

// digits writes three digits that count, and never an exponent.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a == 0 || a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// Times writes how many times the host's cost something is.
func Times(v float64) string { return "×" + digits(v) }

// Spread writes the least and the most, in the unit of the median.
func Spread(s api.PriceSample, unit string) string {
	if s.Count < 2 {
		return "one taking"
	}
	return Text(s.Least, unit) + " to " + Text(s.Most, unit)
}

// Age writes how long ago a price was measured.
func Age(p api.StratumPrice) string {
	d := time.Duration(p.Age) * time.Second
	switch {
	case d < time.Minute:
		return "just now"
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d days ago", int(d.Hours()/24))
}

// measured tells whether a stratum has figures.
func measured(s api.StratumPrice) bool { return !s.Measured.IsZero() && s.Host != nil }

// heading says of a stratum's price when and how it was measured.
func heading(p api.StratumPrice) string {
	text := p.Stratum
	if measured(p) {
		if p.Stratum != "zone" && p.Host.Accelerator != "" {
			text += ", by " + p.Host.Accelerator
		}
		text += "; template " + p.Template + ", measured " + Age(p)
		if p.Quick {
			text += ", quick"
		}
	}
	return text
}

// hostLine says what host figures are of.
func hostLine(h api.PriceHost) string {
	parts := []string{"kernel " + h.Kernel, fmt.Sprintf("%d × %s", h.CPUs, h.CPU)}
	if h.QEMU != "" {
		parts = append(parts, "QEMU "+h.QEMU)
	}
	if h.Accelerator != "" {
		parts = append(parts, "accelerator "+h.Accelerator)
	}
	return strings.Join(append(parts, "strata "+h.Version), ", ")
}

// fraction is how long a bar is, of 1: on a scale of logarithms from a tenth of the
// host's cost to a thousand times, since strata differ by orders of magnitude.
func fraction(times float64) float64 {
	return min(max((math.Log10(times)+1)/4, 0.01), 1)
}
