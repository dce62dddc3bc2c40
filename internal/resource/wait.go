package resource

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

// slice is the longest single wait, so that the end of a context is noticed.
const slice = 50 * time.Millisecond

// late is the fault of a wait that found no end.
func late(ctx context.Context) error {
	if err := ctx.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Busy, "given up: %w", err)
	}
	return fault.Busyf("it did not happen in time")
}

// poll asks done again and again until it holds, ctx ends or patience does. It
// is for v1, which tells of nothing.
func poll(ctx context.Context, done func() (bool, error)) error {
	return each(ctx, done, func() {
		timer := time.NewTimer(tick)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	})
}

// pollEvents is poll that wakes up at once when a v2 group changes.
func pollEvents(ctx context.Context, dir string, done func() (bool, error)) error {
	ok, err := done()
	if ok || err != nil {
		return err
	}
	file, err := os.Open(dir + "/cgroup.events")
	if err != nil {
		return poll(ctx, done)
	}
	defer file.Close()
	return each(ctx, done, func() { changed(file) })
}

// await returns when cgroup.events of dir has the given line.
func await(ctx context.Context, dir, line string) error {
	return pollEvents(ctx, dir, func() (bool, error) {
		text, err := get(dir, "cgroup.events")
		if err != nil {
			return false, explain(err, "read the events of %s", dir)
		}
		return strings.Contains("\n"+text+"\n", "\n"+line+"\n"), nil
	})
}

func each(ctx context.Context, done func() (bool, error), wait func()) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return late(ctx)
		}
		wait()
	}
}

// changed returns when the file changed since it was last read here, or after a slice.
func changed(file *os.File) {
	fds := []unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLPRI}}
	_, _ = unix.Poll(fds, int(slice/time.Millisecond))
	var sink [256]byte
	_, _ = unix.Pread(int(fds[0].Fd), sink[:], 0)
}
