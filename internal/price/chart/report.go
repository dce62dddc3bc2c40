package chart

import (
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/strata-project/strata/api"
)

// Colours of the strata; others are grey. They are told apart by light as well.
var colours = map[string]string{"zone": "#4c9a6a", "guest": "#3f6fb5", "machine": "#8a3b8f"}

func colour(stratum string) string {
	if c := colours[stratum]; c != "" {
		return c
	}
	return "#777777"
}

// Sizes of the picture. Unit: pixels.
const (
	width, labels, bars = 960, 190, 420
	lineHeight          = 18
	margin              = 20
)

// SVG writes p as one picture: for each figure a bar for each stratum.
func SVG(w io.Writer, p api.Price) error {
	body, height := picture(p)
	_, err := fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n%s", frame(body, height))
	return err
}

func frame(body string, height int) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" role="img">
<title>What the strata cost on this host</title>
<rect width="100%%" height="100%%" fill="#ffffff"/>
%s</svg>
`, width, height, width, height, body)
}

func picture(p api.Price) (body string, height int) {
	var b strings.Builder
	y := margin + lineHeight
	text := func(x int, style, words string) {
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" %s>%s</text>\n", x, y, style, html.EscapeString(plain(words)))
	}
	text(margin, `font-size="18" font-weight="bold"`, "What the strata cost on this host")
	y += lineHeight
	text(margin, `fill="#555"`, hostLine(p.Host))
	for _, s := range p.Strata {
		y += lineHeight + 2
		fmt.Fprintf(&b, "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", margin, y-11, colour(s.Stratum))
		text(margin+20, "", heading(s)+note(s))
	}
	y += lineHeight + 4
	text(margin+labels, `fill="#555"`, "times the bare host's cost, by logarithm: the line is ×1, the full width ×1000")
	for _, name := range names(p) {
		y += lineHeight + 8
		text(margin, `font-weight="bold"`, name)
		for _, s := range p.Strata {
			if f := figureOf(s, name); f != nil {
				mark(&b, s, *f, y)
				text(margin+labels+bars+10, "", value(*f))
				y += lineHeight
			}
		}
		y -= lineHeight
	}
	one := margin + labels + bars/4
	fmt.Fprintf(&b, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#222\" stroke-dasharray=\"3 3\"/>\n",
		one, margin+(len(p.Strata)+4)*lineHeight, one, y+6)
	return b.String(), y + 2*margin
}

// mark draws the bar of a figure that has one, and a dot of one without a host's side; what
// was not measured has neither.
func mark(b *strings.Builder, s api.StratumPrice, f api.PriceFigure, y int) {
	if f.Inside == nil {
		return
	}
	if f.Times > 0 {
		fmt.Fprintf(b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"13\" fill=\"%s\"/>\n", margin+labels, y-11, int(fraction(f.Times)*bars), colour(s.Stratum))
		return
	}
	fmt.Fprintf(b, "<circle cx=\"%d\" cy=\"%d\" r=\"4\" fill=\"%s\"/>\n", margin+labels+6, y-4, colour(s.Stratum))
}

func note(s api.StratumPrice) string {
	switch {
	case s.LeftOut != "":
		return "; left out: " + s.LeftOut
	case !measured(s):
		return "; not measured"
	case s.Stale != nil:
		return "; stale: " + strings.Join(s.Stale, ", ")
	}
	return ""
}

// value is a figure in words.
func value(f api.PriceFigure) string {
	if f.Inside == nil {
		return "not measured"
	}
	text := Text(f.Inside.Median, f.Unit)
	if f.Times > 0 {
		text += " (host " + Text(f.Host.Median, f.Unit) + ", " + Times(f.Times) + ")"
	}
	return text
}

// names lists every figure that one of the strata has, in their order.
func names(p api.Price) []string {
	var all []string
	seen := map[string]bool{}
	for _, s := range p.Strata {
		if !measured(s) {
			continue
		}
		for _, f := range s.Figures {
			if !seen[f.Name] {
				all, seen[f.Name] = append(all, f.Name), true
			}
		}
	}
	return all
}

func figureOf(s api.StratumPrice, name string) *api.PriceFigure {
	for i := range s.Figures {
		if s.Figures[i].Name == name && measured(s) {
			return &s.Figures[i]
		}
	}
	return nil
}

// HTML writes p as one page: the picture, and a table with all takings.
func HTML(w io.Writer, p api.Price) error {
	var b strings.Builder
	body, height := picture(p)
	b.WriteString(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>What the strata cost on this host</title>
<style>body{font-family:sans-serif;margin:2em;max-width:70em}table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right}svg{max-width:100%;height:auto}</style>
</head><body>
`)
	b.WriteString(frame(body, height))
	for _, s := range p.Strata {
		fmt.Fprintf(&b, "<h2>%s</h2>\n", esc(heading(s)+note(s)))
		if !measured(s) {
			continue
		}
		b.WriteString("<p>" + esc(hostLine(*s.Host)) + "</p>\n<table><tr><th>figure</th><th>meaning</th><th>inside</th><th>spread</th><th>host</th><th>spread</th><th>times the host's cost</th><th>takings</th></tr>\n")
		for _, f := range s.Figures {
			b.WriteString(tableRow(f))
		}
		b.WriteString("</table>\n")
	}
	b.WriteString("</body></html>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func tableRow(f api.PriceFigure) string {
	cells := []string{f.Name, f.Means, "not measured", f.Why, "", "", "", ""}
	if f.Inside != nil {
		cells[2], cells[3], cells[7] = Text(f.Inside.Median, f.Unit), Spread(*f.Inside, f.Unit), fmt.Sprint(f.Inside.Count)
	}
	if f.Host != nil {
		cells[4], cells[5] = Text(f.Host.Median, f.Unit), Spread(*f.Host, f.Unit)
	}
	if f.Times > 0 {
		cells[6] = Times(f.Times)
	}
	row := "<tr>"
	for _, c := range cells {
		row += "<td>" + esc(c) + "</td>"
	}
	return row + "</tr>\n"
}

func esc(text string) string { return html.EscapeString(plain(text)) }
