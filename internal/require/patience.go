package require

import (
	"os"
	"strconv"
	"time"
)

// patienceVariable names how many times slower than usual this machine is, such
// as an emulated one: a whole number, 1 where it is unset.
const patienceVariable = "STRATA_TEST_PATIENCE"

// Slowness returns how many times slower than usual this machine is said to be.
func Slowness() int {
	if n, err := strconv.Atoi(os.Getenv(patienceVariable)); err == nil && n > 1 {
		return n
	}
	return 1
}

// Patience stretches a bound for a slow machine. It is for bounds after which a
// test gives up, never for those that it asserts of strata's own timers.
func Patience(bound time.Duration) time.Duration {
	return bound * time.Duration(Slowness())
}
