package price

import (
	"bufio"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// sample is the median and spread of takings, nil where there is none.
func sample(v []float64) *api.PriceSample {
	if len(v) == 0 {
		return nil
	}
	return &api.PriceSample{Median: median(v), Least: slices.Min(v), Most: slices.Max(v), Count: len(v)}
}

// median of what is not empty.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// times is how many times the host's cost the inside's is: the median of the pairs'
// ratios. It is 0 where there are no pairs.
func times(inside, host []float64, more bool) float64 {
	var ratios []float64
	for i := range min(len(inside), len(host)) {
		a, b := inside[i], host[i]
		if more {
			a, b = b, a
		}
		if b > 0 && a > 0 {
			ratios = append(ratios, a/b)
		}
	}
	if ratios == nil {
		return 0
	}
	return median(ratios)
}

// maxSaid bounds what is read of the measuring command. Unit: bytes.
const maxSaid = 4096

// parse reads what the measuring command says: only figures in known, each once,
// finite and above zero.
func parse(r io.Reader, known func(name string) bool) (map[string]float64, error) {
	found := map[string]float64{}
	lines := bufio.NewScanner(io.LimitReader(r, maxSaid))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v <= 0 {
			return nil, fault.Internalf("the measuring command says %q, which is no figure", lines.Text())
		}
		if _, twice := found[name]; twice || !known(name) {
			return nil, fault.Internalf("the measuring command tells of %q, which was not asked", name)
		}
		found[name] = v
	}
	if err := lines.Err(); err != nil {
		return nil, fault.Wrap(err, "read what the measuring command says")
	}
	return found, nil
}
