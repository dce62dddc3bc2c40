package main

import "time"

// stamp reads the processor's time stamp counter.
func stamp() uint64

// tsc returns how fast that counter runs, in kHz: a kernel that is emulated and not
// told hangs at times.
func tsc() int {
	begun, first := time.Now(), stamp()
	time.Sleep(20 * time.Millisecond)
	last, took := stamp(), time.Since(begun)
	return int(float64(last-first) / took.Seconds() / 1000)
}
