package screen

import (
	"context"
	"encoding/binary"
	"image"
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// Text returns what is written on the screen: a line for each row, without the
// spaces at its end and the empty rows at the bottom. A character that no font of the
// machine has reads as U+FFFD. Kinds: Unable where the screen is graphical; as Shot's.
func (s *Screen) Text(ctx context.Context) (string, error) {
	g, size, err := s.look(ctx)
	if err != nil {
		return "", err
	}
	if !g.text(size) {
		return "", graphical(size)
	}
	return g.String(), nil
}

func graphical(size image.Point) error {
	return fault.Unablef("the screen is graphical, %d by %d dots, and not text that can be read", size.X, size.Y).
		Help("take a picture of it instead: strata screen NAME")
}

// look reads the screen, and its fonts again where those that were read before do
// not explain it. Most often they do, and cost nothing.
func (s *Screen) look(ctx context.Context) (grid, image.Point, error) {
	p, err := s.Shot(ctx)
	if err != nil {
		return grid{}, image.Point{}, err
	}
	s.mu.Lock()
	f := s.seen
	s.mu.Unlock()
	best := read(p, f)
	if best.whole() {
		return best, p.Rect.Max, nil
	}
	if f, err = s.readFonts(ctx, f.firmware); err != nil {
		return grid{}, image.Point{}, err
	}
	s.mu.Lock()
	s.seen = f
	s.mu.Unlock()
	return read(p, f), p.Rect.Max, nil
}

// grid is a way to divide a picture into cells, and what is read that way.
type grid struct {
	rows         [][]rune
	known, cells int    // glyphs that were recognised, of those cells that are not empty
	cursor       bool   // one of them has the cursor in it
	ground       uint32 // the colour that most of a row is drawn on
}

// share of the cells that are not empty must be known for a picture to be text: a
// kernel's console may show a small image at its top. Unit: percent.
const share = 70

// enough cells to judge a picture by.
const enough = 200

// whole tells whether nothing is left to be recognised.
func (g grid) whole() bool { return g.cells > 0 && g.known == g.cells }

// text tells whether a picture of that size is text. An empty one is where a text
// mode has its size. Source: IBM VGA technical reference, modes 0 to 3 and 7.
func (g grid) text(size image.Point) bool {
	if g.cells == 0 {
		return size == image.Pt(720, 400) || size == image.Pt(640, 400)
	}
	return g.known*100 >= g.cells*share
}

func (g grid) String() string {
	var b strings.Builder
	empty := 0
	for _, row := range g.rows {
		line := strings.TrimRight(string(row), " ")
		if line == "" {
			empty++
			continue
		}
		b.WriteString(strings.Repeat("\n", empty) + line + "\n")
		empty = 0
	}
	return b.String()
}

// wide are the widths that cells have: 9 and 8 dots, and 8 that are drawn twice.
// Source: QEMU, hw/display/vga.c, vga_get_text_resolution.
var wide = []int{9, 8, 16}

// read divides p in every way that a text mode may have, and takes the way in which
// the most cells are known.
func read(p *image.RGBA, f fonts) grid {
	var best grid
	for _, lines := range f.heights(p.Rect.Max.Y) {
		known := f.codes(lines)
		for _, width := range wide {
			if p.Rect.Max.X/width < 20 {
				continue
			}
			g := readCells(p, image.Pt(width, lines), known)
			if g.better(best) {
				best = g
			}
		}
	}
	return best
}

// better: more is known, and what was divided wrongly leaves more unknown.
func (g grid) better(than grid) bool {
	if than.rows == nil {
		return true
	}
	return g.known*max(than.cells, 1) > than.known*max(g.cells, 1)
}

// highest is how high text modes are at most. Unit: dots. Source: IBM VGA technical
// reference, vertical timing.
const highest = 480

// heights are those that cells of a picture that is so high may have: those of the
// firmware's fonts, and where a system has loaded its own those that divide it.
func (f fonts) heights(high int) []int {
	var all []int
	for lines := tall; lines >= 8; lines-- {
		fits := f.own != nil && high <= highest && high%lines == 0
		for _, s := range f.firmware {
			fits = fits || s.lines == lines
		}
		if fits {
			all = append(all, lines)
		}
	}
	return all
}

// codes returns what each glyph of so many lines draws. The firmware's word comes
// first, since a system may have put its own letters at other places.
func (f fonts) codes(lines int) map[glyph]rune {
	known := make(map[glyph]rune, 512)
	add := func(from *font) {
		for _, code := range preferred {
			var g glyph
			copy(g[:lines], from[code][:])
			if _, ok := known[g]; !ok {
				known[g] = cp437[code]
			}
		}
	}
	for _, s := range f.firmware {
		if s.lines == lines {
			add(s.font)
		}
	}
	if f.own != nil {
		add(f.own)
	}
	known[glyph{}] = ' '
	return known
}

// readCells reads a picture as cells of a size. What is left at the right and at
// the bottom belongs to no cell.
func readCells(p *image.RGBA, size image.Point, known map[glyph]rune) grid {
	var g grid
	for y := 0; y+size.Y <= p.Rect.Max.Y; y += size.Y {
		g.ground = ground(p, y, size.X)
		row := make([]rune, 0, p.Rect.Max.X/size.X)
		for x := 0; x+size.X <= p.Rect.Max.X; x += size.X {
			row = append(row, g.cell(p, image.Rect(x, y, x+size.X, y+size.Y), known))
		}
		g.rows = append(g.rows, row)
		if g.cells >= enough && g.known*100 < g.cells*share/2 {
			break // this is no way to read it
		}
	}
	return g
}

// unknown stands for what is no glyph. Source: Unicode, replacement character.
const unknown = '\ufffd'

// cell reads one cell, of two colours: either may be the one that is drawn with.
func (g *grid) cell(p *image.RGBA, r image.Rectangle, known map[glyph]rune) rune {
	drawn, front, ok := dots(p, r)
	if drawn == (glyph{}) && ok {
		return ' '
	}
	g.cells++
	if ok {
		either := []glyph{drawn, drawn.inverse(r.Dy())}
		if front == g.ground {
			slices.Reverse(either)
		}
		for _, one := range either {
			if code, found := known[one]; found {
				g.known++
				return code
			}
		}
		if !g.cursor {
			if code, found := drawn.under(r.Dy(), known); found {
				g.known++
				g.cursor = true
				return code
			}
		}
	}
	return unknown
}

// ground returns the colour that most cells of a row begin with.
func ground(p *image.RGBA, y, width int) uint32 {
	count := map[uint32]int{}
	var most uint32
	for x := 0; x+width <= p.Rect.Max.X; x += width {
		c := colour(p, x, y)
		count[c]++
		if count[c] > count[most] {
			most = c
		}
	}
	return most
}

// dots returns what is drawn in a cell, as the colour that its first dot does not
// have, and that colour. ok is false where there are more than two colours. The ninth dot of a line
// is the eighth again, or empty: it tells nothing.
func dots(p *image.RGBA, r image.Rectangle) (drawn glyph, front uint32, ok bool) {
	step := r.Dx() / 16 // 1 where each dot is drawn twice
	back := colour(p, r.Min.X, r.Min.Y)
	front = back
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := range r.Dx() {
			c := colour(p, r.Min.X+x, y)
			if c == back {
				continue
			}
			if front == back {
				front = c
			}
			if c != front {
				return drawn, front, false
			}
			drawn[y-r.Min.Y] |= 0x80 >> (x >> step)
		}
	}
	return drawn, front, true
}

func colour(p *image.RGBA, x, y int) uint32 {
	return binary.NativeEndian.Uint32(p.Pix[y*p.Stride+x*4:])
}

// inverse is what is drawn where the other colour is taken for the ground.
func (g glyph) inverse(lines int) glyph {
	for i := range lines {
		g[i] = ^g[i]
	}
	return g
}

// under finds the glyph that has a cursor drawn over it: lines that are full, with
// none between them that is not. An empty cell is most likely.
func (g glyph) under(lines int, known map[glyph]rune) (rune, bool) {
	first, last := 0, lines-1
	for first < lines && g[first] != 0xff {
		first++
	}
	for last >= 0 && g[last] != 0xff {
		last--
	}
	if first > last {
		return 0, false
	}
	for i := first; i <= last; i++ {
		if g[i] != 0xff {
			return 0, false
		}
		g[i] = 0
	}
	if code, found := known[g]; found {
		return code, true
	}
	for other, code := range known {
		copy(other[first:last+1], g[first:last+1])
		if other == g {
			return code, true
		}
	}
	return 0, false
}
