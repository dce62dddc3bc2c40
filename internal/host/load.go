package host

// Load is how much of the host's processors something used, by the minute: enough to say
// what it stayed below nearly always. The zero value has seen nothing. It is kept as JSON.
type Load struct {
	// Minutes counts those in which it was at most so many twentieths of all processors.
	Minutes [twentieths]int `json:"minutes"`
}

const (
	twentieths = 20
	// remembered is after how many minutes older ones count half: of two days.
	remembered = 2 * 24 * 60
	// nearly is the part of the minutes that Most speaks of.
	nearly = 0.95
)

// Add counts a minute in which a part of all processors, from 0 to 1, was used.
func (l *Load) Add(part float64) {
	at := 0
	for at < twentieths-1 && part > float64(at+1)/twentieths {
		at++
	}
	l.Minutes[at]++
	if l.Seen() < remembered {
		return
	}
	for i := range l.Minutes {
		l.Minutes[i] /= 2
	}
}

// Seen is how many minutes are counted.
func (l *Load) Seen() (n int) {
	for _, m := range l.Minutes {
		n += max(m, 0) // a file may say anything
	}
	return n
}

// Most is the part of all processors, in whole twentieths, that was not passed in 95 of
// 100 minutes; 0 where none was seen.
func (l *Load) Most() float64 {
	want, sum := nearly*float64(l.Seen()), 0
	if want == 0 {
		return 0
	}
	for i, m := range l.Minutes {
		if sum += max(m, 0); float64(sum) >= want {
			return float64(i+1) / twentieths
		}
	}
	return 1
}
