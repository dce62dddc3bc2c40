package history

import "testing"

func TestCoarsePointsAreMadeOfFineOnes(t *testing.T) {
	var h History
	const begin = 1_800_000_000 // the beginning of an hour
	const end = begin + 3*3600 + 2
	for at := int64(begin + 1); at < end; at++ {
		p := Point{At: at, CPU: 100, Memory: 5, Processes: 1, Sent: 10}
		if at%60 == 30 {
			p.CPU, p.Memory, p.Processes, p.Sent = 700, 50, 9, 610
		}
		h.Add(p)
	}
	seconds, minutes, hours := h.Points(Second), h.Points(Minute), h.Points(Hour)
	if len(seconds) != 60 || seconds[0].At != end-60 || seconds[59].At != end-1 {
		t.Errorf("%d seconds from %d to %d", len(seconds), seconds[0].At, seconds[len(seconds)-1].At)
	}
	want := Point{CPU: 110, Memory: 50, Processes: 9, Sent: 20}
	if len(minutes) != 60 {
		t.Fatalf("%d minutes", len(minutes))
	}
	for i, p := range minutes {
		want.At = begin + 2*3600 + int64(i+1)*60
		if p != want {
			t.Errorf("minute %d is %+v, not %+v", i, p, want)
		}
	}
	if len(hours) != 2 { // the third is made once a point of the fourth's minutes is there
		t.Fatalf("%d hours", len(hours))
	}
	want.At = begin + 2*3600
	if hours[1] != want {
		t.Errorf("an hour is %+v, not %+v", hours[1], want)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	var h History
	for at := int64(1); at < 60*3600*24; at += 30 { // sixty days
		h.Add(Point{At: at})
	}
	for s, most := range kept {
		points := h.Points(Step(s))
		if len(points) != most || cap(h.rings[s].points) > 2*most {
			t.Errorf("step %d has %d points, room for %d", s, len(points), cap(h.rings[s].points))
		}
		for i := 1; i < len(points); i++ {
			if points[i].At <= points[i-1].At {
				t.Fatalf("step %d is out of order", s)
			}
		}
	}
}

func TestAPointThatIsNotLaterIsLeftOut(t *testing.T) {
	var h History
	h.Add(Point{At: 10, CPU: 1})
	h.Add(Point{At: 10, CPU: 2})
	h.Add(Point{At: 9, CPU: 3})
	if p := h.Points(Second); len(p) != 1 || p[0].CPU != 1 {
		t.Errorf("%+v", p)
	}
}

func TestStepsAreRead(t *testing.T) {
	for text, want := range map[string]Step{"1s": Second, "1m": Minute, "60s": Minute, "1h": Hour} {
		if s, ok := ParseStep(text); !ok || s != want {
			t.Errorf("%s is %d, %t", text, s, ok)
		}
	}
	for _, text := range []string{"", "2s", "x", "-1s"} {
		if _, ok := ParseStep(text); ok {
			t.Errorf("%q is a step", text)
		}
	}
}
