package program

import (
	"os"
	"testing"
)

func TestReservedThreadsAreThere(t *testing.T) {
	const n = 30 // more than a test has by itself
	Reserve(n)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	if len(tasks) < n {
		t.Errorf("%d threads after reserving %d", len(tasks), n)
	}
}
