package agent

import "testing"

func TestProgramSegments(t *testing.T) {
	total := 0
	for _, s := range segments() {
		total += len(s)
	}
	if total < 100<<10 {
		t.Errorf("the program's read-only segments have %d bytes", total)
	}
	shrink() // and it still runs
}
