package host

import "testing"

func TestALoadSaysWhatItStaysBelow(t *testing.T) {
	minutes := func(n int, part float64) func(*Load) {
		return func(l *Load) {
			for range n {
				l.Add(part)
			}
		}
	}
	for name, c := range map[string]struct {
		seen []func(*Load)
		want float64
	}{
		"nothing seen":                          {nil, 0},
		"nothing used":                          {[]func(*Load){minutes(60, 0)}, 0.05},
		"exactly a twentieth":                   {[]func(*Load){minutes(60, 0.05)}, 0.05},
		"a little more":                         {[]func(*Load){minutes(60, 0.051)}, 0.1},
		"a burst in 5 of 100 does not count":    {[]func(*Load){minutes(95, 0.12), minutes(5, 0.9)}, 0.15},
		"one in 10 of 100 does":                 {[]func(*Load){minutes(90, 0.12), minutes(10, 0.9)}, 0.9},
		"more than there is":                    {[]func(*Load){minutes(9, 1.7)}, 1},
		"what was days ago is forgotten":        {[]func(*Load){minutes(2000, 0.9), minutes(20000, 0.2)}, 0.2},
		"a day of quiet takes nothing yet":      {[]func(*Load){minutes(1400, 0.6), minutes(1400, 0)}, 0.6},
		"what was less than nothing is a clock": {[]func(*Load){minutes(3, -0.3)}, 0.05},
	} {
		var l Load
		for _, add := range c.seen {
			add(&l)
		}
		if got := l.Most(); got != c.want {
			t.Errorf("%s: %g, want %g (%v)", name, got, c.want, l)
		}
		if l.Seen() > remembered {
			t.Errorf("%s: %d minutes are kept", name, l.Seen())
		}
	}
	if l := (Load{Minutes: [twentieths]int{-5, 1}}); l.Most() != 0.1 {
		t.Errorf("of a file that says nonsense: %g", l.Most())
	}
}
