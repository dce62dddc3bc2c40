package resource

import (
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

func TestASampleIsReadOutOfText(t *testing.T) {
	if n := field([]byte("a 1\nnr_usage_usec 2\nusage_usec 345\n"), "usage_usec "); n != 345 {
		t.Errorf("field: %d", n)
	}
	if n := sum([]byte("8:0 rbytes=10 wbytes=2\n7:1 rbytes=5 wbytes=3\n"), "rbytes="); n != 15 {
		t.Errorf("sum: %d", n)
	}
	for text, want := range map[string]int64{"": 0, "max": 0, "12\n": 12, "9223372036854775807": 922337203685477580} {
		if n := count64([]byte(text)); n != want {
			t.Errorf("%q is %d, not %d", text, n, want)
		}
	}
	p := parsePressure([]byte("some avg10=1.50 avg60=0.00 avg300=0.00 total=3\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=0\n"))
	if p.Some != 1.5 || p.Full != .25 {
		t.Errorf("%+v", p)
	}
	if p := parsePressure([]byte("some avg10=NaN\nfull avg10=900\nsome\n")); p != (Pressure{}) {
		t.Errorf("%+v", p)
	}
}

func FuzzSample(f *testing.F) {
	f.Add("usage_usec 1\n8:0 rbytes=1 wbytes=2", "some avg10=1")
	f.Fuzz(func(t *testing.T, stat, pressure string) {
		b := []byte(stat)
		if field(b, "usage_usec ") < 0 || count64(b) < 0 || !strings.Contains(stat, "=") && sum(b, "rbytes=") != 0 {
			t.Error(stat)
		}
		if p := parsePressure([]byte(pressure)); p.Some < 0 || p.Full > 100 {
			t.Errorf("%+v", p)
		}
	})
}

func TestTheLimitOfSwapIsCounted(t *testing.T) {
	r := realRoot(t)
	require.Host(t, "swap-accounting", r.Layout().Swap, "the kernel does not account for swap")
	swap := unit.Size(48 * unit.MiB)
	s, err := create(t, r, "swaps", Limits{Memory: 64 << 20, Swap: &swap}, 0).Stats()
	if err != nil || s.Memory.SwapLimit != int64(swap) || s.Memory.Limit != 64<<20 {
		t.Errorf("%+v, %v; want a limit of %s", s.Memory, err, swap)
	}
}
