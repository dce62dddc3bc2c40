package vmagent

import (
	"encoding/binary"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// Bounds of what the host may give to the random generator. Unit: bytes.
const (
	minEntropy = 32
	maxEntropy = 512
)

// reseed makes this system's random numbers its own. It may be a copy of another
// one's memory, so nothing of an environment runs before.
// Source: random(4), RNDADDENTROPY and RNDRESEEDCRNG.
func (a *agent) reseed(entropy []byte) error {
	if len(entropy) < minEntropy || len(entropy) > maxEntropy {
		return root.Fail(root.Invalid, "entropy", "32 to 512 bytes are needed for the random generator")
	}
	pool := make([]byte, 8, 8+len(entropy)) // struct rand_pool_info: bits, bytes
	binary.NativeEndian.PutUint32(pool, uint32(len(entropy)*8))
	binary.NativeEndian.PutUint32(pool[4:], uint32(len(entropy)))
	pool = append(pool, entropy...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(a.random), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&pool[0]))); errno != 0 {
		return root.Wrap(errno, "give entropy to the kernel")
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(a.random), unix.RNDRESEEDCRNG, 0); errno != 0 {
		return root.Wrap(errno, "reseed the random generator")
	}
	clear(pool)
	clear(entropy)
	return nil
}

// openRandom opens what reseed writes to, before there is a run to make wait for it.
func (a *agent) openRandom() (err error) {
	a.random, err = unix.Openat(a.dev, "urandom", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	return root.Wrap(err, "open the random generator")
}

// setClock sets the wall clock. Unit: nanoseconds since 1970.
func setClock(now int64) error {
	if now <= 0 {
		return root.Fail(root.Invalid, "clock", "the time is before 1970")
	}
	t := unix.NsecToTimespec(now)
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &t); err != nil {
		return root.Wrap(err, "set the clock to "+time.Unix(0, now).UTC().Format(time.RFC3339))
	}
	return nil
}
