package qemu

import (
	"sync"
	"time"
)

// stamp reads the processor's time stamp counter.
func stamp() uint64

// tscSpan is how long the counter is watched: long enough for an error of 0.1 %.
const tscSpan = 20 * time.Millisecond

// TSC returns how fast the host's time stamp counter runs, in kHz.
var TSC = sync.OnceValue(func() int {
	begin, first := time.Now(), stamp()
	time.Sleep(tscSpan)
	last, took := stamp(), time.Since(begin)
	return int(float64(last-first) / took.Seconds() / 1000)
})
