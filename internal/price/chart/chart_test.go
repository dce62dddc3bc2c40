package chart

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
)

func TestFiguresInThreeDigits(t *testing.T) {
	for _, c := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "ms", "0 ms"}, {1.234, "ms", "1.23 ms"}, {12.34, "ms", "12.3 ms"}, {123.4, "ms", "123 ms"}, {1234, "ms", "1.23 s"},
		{999, "ns", "999 ns"}, {2500000, "ns", "2.50 ms"}, {1500, "MB/s", "1.50 GB/s"}, {2048, "MiB", "2.00 GiB"}, {1023, "MiB", "1023 MiB"}, {12345, "/s", "12345/s"},
	} {
		if got := Text(c.v, c.unit); got != c.want {
			t.Errorf("%v %s: %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestBarsGrowWithTheCost(t *testing.T) {
	before := -1
	for _, times := range []float64{0.01, 0.5, 1.5, 3, 10, 100, 1000, 1e6} {
		n := strings.Count(bar(times), "█")
		if n < before || n < 1 || n > barWidth || len([]rune(bar(times))) != barWidth {
			t.Errorf("×%v: %d cells of %q", times, n, bar(times))
		}
		before = n
	}
	if !strings.Contains(bar(0.2), "|") || strings.Contains(bar(50), "|") {
		t.Errorf("the mark: %q, %q", bar(0.2), bar(50))
	}
}

func sampled() api.Price {
	host := api.PriceHost{Kernel: "6.1", CPU: `<b>&"evil`, CPUs: 2, QEMU: "7.2", Accelerator: "tcg", Version: "v"}
	one := func(v float64) *api.PriceSample {
		return &api.PriceSample{Median: v, Least: v / 2, Most: v * 2, Count: 3}
	}
	return api.Price{Host: host, Strata: []api.StratumPrice{
		{Stratum: "zone", Measured: time.Unix(1, 0), Age: 7200, Host: &host, Template: "t\x1b[2J", Quick: true, Stale: []string{"the kernel was 6.0 and is 6.1"}, Figures: []api.PriceFigure{
			{Name: "start", Unit: "ms", Inside: one(12)},
			{Name: "cpu", Unit: "M/s", More: true, Inside: one(50), Host: one(100), Times: 2},
			{Name: "disk-read", Unit: "MB/s", Why: "<script>"},
		}},
		{Stratum: "guest", LeftOut: "no QEMU", Figures: []api.PriceFigure{}},
		{Stratum: "machine", Figures: []api.PriceFigure{{Name: "cpu", Unit: "M/s", Inside: one(1)}}}, // never measured
	}}
}

func TestTheTerminalShowsAllThatIsKnown(t *testing.T) {
	var b strings.Builder
	if err := Terminal(&b, sampled()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"zone; template t?[2J, measured 2 h ago, quick", "stale: the kernel was 6.0 and is 6.1", "12.0 ms   (6.00 ms to 24.0 ms)", "host 100 M/s", "×2.00", "disk-read        not measured   <script>",
		"guest\n  left out: no QEMU\n  not measured", "machine\n  not measured",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	if strings.ContainsRune(b.String(), 0x1b) {
		t.Error("it steers the terminal")
	}
}

func TestReportsAreWholeAndNeedNothingElse(t *testing.T) {
	for name, draw := range map[string]func(io.Writer, api.Price) error{"svg": SVG, "html": HTML} {
		for which, p := range map[string]api.Price{"full": sampled(), "empty": {}} {
			var b strings.Builder
			if err := draw(&b, p); err != nil {
				t.Fatal(err)
			}
			text := b.String()
			d := xml.NewDecoder(strings.NewReader(text))
			d.Strict, d.AutoClose, d.Entity = name == "svg", xml.HTMLAutoClose, xml.HTMLEntity
			for {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("%s, %s: %v\n%s", name, which, err, text)
				}
			}
			for _, never := range []string{"<script", "<b>", "src=", "href=", "url(", "\x1b"} {
				if strings.Contains(text, never) {
					t.Errorf("%s, %s: it has %q", name, which, never)
				}
			}
			if n := strings.Count(text, "<circle"); which == "full" && n != 1 { // start; what was not measured has no dot
				t.Errorf("%s: %d dots", name, n)
			}
			if which == "full" && (!strings.Contains(text, "50.0 M/s") || !strings.Contains(text, "no QEMU") || !strings.Contains(text, "not measured") || strings.Contains(text, "1.00 M/s")) {
				t.Errorf("%s: %s", name, text)
			}
		}
	}
}
