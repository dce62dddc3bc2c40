package resource

import (
	"testing"
	"time"
)

func TestAGaugeSaysWhatASampleSaysUntilTheGroupIsGone(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "gauged", Limits{Memory: 64 << 20, PIDs: 50}, 0)
	spawn(t, g, "hold")
	// While it begins, its processor time may lag behind what it has taken.
	for last := (Sample{}); ; time.Sleep(50 * time.Millisecond) {
		s, _ := g.Sample()
		if s == last && s.CPU > 0 {
			break
		}
		last = s
	}
	a := g.Gauge()
	before := gauges.Load()
	for range 3 { // files are opened by the first and read again by the others
		once, ok := g.Sample()
		s, measured := a.Sample()
		again, still := g.Sample()
		if !ok || !measured || !still {
			t.Fatal("there is no sample")
		}
		// The program may begin threads meanwhile.
		if s.PIDs < min(once.PIDs, again.PIDs) || s.PIDs > max(once.PIDs, again.PIDs) || s.Memory < once.Memory/2 || s.CPU < once.CPU || s.CPU > again.CPU {
			t.Errorf("%+v; a sample said %+v before, and %+v after", s, once, again)
		}
	}
	if gauges.Load() != before+1 {
		t.Errorf("%d gauges are open, not %d", gauges.Load(), before+1)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s, ok := a.Sample(); ok {
			t.Errorf("of a group that is gone: %+v", s)
		}
	}
	if gauges.Load() != before {
		t.Errorf("%d gauges stay open", gauges.Load()-before)
	}
}

func TestAGaugeLooksLessAtWhatDoesNotRun(t *testing.T) {
	r := realRoot(t)
	g := create(t, r, "rests", Limits{Memory: 64 << 20, PIDs: 50}, 0)
	spawn(t, g, "hold")
	if err := g.Freeze(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := g.Gauge()
	defer a.Close()
	if _, ok := a.Sample(); !ok {
		t.Fatal("there is no sample")
	}
	a.last.Memory = 1 // as if the host had taken memory back since
	for look := range 2 * wholeEvery {
		s, ok := a.Sample()
		if old, want := s.Memory == 1, look < wholeEvery-1; !ok || old != want {
			t.Errorf("look %d: %+v", look, s)
		}
	}
	a.last.Memory = 1
	if err := g.Thaw(t.Context()); err != nil {
		t.Fatal(err)
	}
	spawn(t, g, "hold") // something runs
	if s, _ := a.Sample(); s.Memory == 1 {
		t.Errorf("when something ran: %+v", s)
	}
}

func BenchmarkSample(b *testing.B) {
	r := realRoot(b)
	var all []*Group
	var kept []*Gauge
	for i := range 200 {
		g := create(b, r, "s"+string(rune('a'+i%26))+string(rune('a'+i/26)), Limits{}, 0)
		all, kept = append(all, g), append(kept, g.Gauge())
	}
	b.Run("opened each time", func(b *testing.B) {
		for b.Loop() {
			for _, g := range all {
				g.Sample()
			}
		}
	})
	b.Run("kept open", func(b *testing.B) {
		for b.Loop() {
			for _, g := range kept {
				g.Sample()
			}
		}
	})
}
