package chart

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/strata-project/strata/api"
)

// barWidth is how many columns the longest bar has.
const barWidth = 24

// Terminal writes p as a table with bars, for every stratum one.
func Terminal(w io.Writer, p api.Price) error {
	var b strings.Builder
	fmt.Fprintf(&b, "host: %s\n", hostLine(p.Host))
	for _, s := range p.Strata {
		b.WriteByte('\n')
		b.WriteString(heading(s) + "\n")
		if s.LeftOut != "" {
			fmt.Fprintf(&b, "  left out: %s\n", s.LeftOut)
		}
		for _, why := range s.Stale {
			fmt.Fprintf(&b, "  stale: %s\n", why)
		}
		if !measured(s) {
			b.WriteString("  not measured\n")
			continue
		}
		for _, f := range s.Figures {
			row(&b, f)
		}
	}
	b.WriteString("\nBars: times the bare host's cost, from ×0.1 to ×1000 by logarithm; the mark is ×1.\n")
	_, err := io.WriteString(w, plain(b.String()))
	return err
}

func row(b *strings.Builder, f api.PriceFigure) {
	if f.Inside == nil {
		fmt.Fprintf(b, "  %-16s %12s   %s\n", f.Name, "not measured", f.Why)
		return
	}
	line := "  " + pad(f.Name, 16) + " " + left(Text(f.Inside.Median, f.Unit), 12)
	if f.Times > 0 {
		line += "   " + pad("host "+Text(f.Host.Median, f.Unit), 17) + left(Times(f.Times), 7) + "  " + bar(f.Times)
	} else {
		line += "   (" + Spread(*f.Inside, f.Unit) + ")"
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// bar draws how many times the host's cost something is.
func bar(times float64) string {
	n := max(1, int(fraction(times)*barWidth+0.5))
	cells := []rune(strings.Repeat("█", n) + strings.Repeat(" ", barWidth-n))
	if one := barWidth / 4; n <= one { // ×1
		cells[one] = '|'
	}
	return string(cells)
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func left(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))) + text
}

// plain keeps what others chose from steering a terminal.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && (r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0) {
			return '?'
		}
		return r
	}, text)
}
