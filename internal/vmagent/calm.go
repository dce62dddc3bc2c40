package vmagent

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// slack is the agent's timer slack. Unit: nanoseconds. Go's runtime has a thread that
// looks after the others every 20 µs while they are busy. Each time costs hundreds of
// instructions, which is a seventh of a start where a processor is emulated, and it
// is of no use to the agent. What the agent starts has the usual slack again.
const slack = 5_000_000

// calm gives every thread that there is the agent's slack, and with that those that they
// make. The kernel starts its first program with the usual one, and a thread can set
// but its own by prctl(2).
func calm() {
	dir, err := unix.Open("/proc/self/task", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return // tolerated, as is all that follows: it only costs more
	}
	defer unix.Close(dir)
	buf := make([]byte, 1024) // a program that has just begun has a few threads
	n, err := unix.ReadDirent(dir, buf)
	if err != nil {
		return
	}
	_, _, names := unix.ParseDirent(buf[:n], -1, nil)
	for _, name := range names {
		_ = writeFile("/proc/"+name+"/timerslack_ns", strconv.Itoa(slack))
	}
}
