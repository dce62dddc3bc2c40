package environment

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Real-time signals as programs count them: the C libraries keep the first two
// for themselves. Source: signal(7).
const (
	rtMin = 34
	rtMax = 64
)

// ParseSignal reads a signal: a name with or without SIG in any case, such as
// TERM or RTMIN+3, or a number from 1 to 64. Kinds: Invalid.
func ParseSignal(text, field string) (syscall.Signal, error) {
	bad := fault.Invalidf("%q is not a signal", clip(text)).At(field).Help("use a name such as TERM, KILL, HUP, USR1 or RTMIN+3, or a number from 1 to 64")
	name := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(text)), "SIG")
	if n, err := strconv.Atoi(name); err == nil {
		if n < 1 || n > rtMax {
			return 0, bad
		}
		return syscall.Signal(n), nil
	}
	if rest, ok := strings.CutPrefix(name, "RTMIN"); ok {
		return realTime(rtMin, rest, '+', bad)
	}
	if rest, ok := strings.CutPrefix(name, "RTMAX"); ok {
		return realTime(rtMax, rest, '-', bad)
	}
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n, nil
	}
	return 0, bad
}

func realTime(base int, rest string, sign byte, bad error) (syscall.Signal, error) {
	if rest == "" {
		return syscall.Signal(base), nil
	}
	n, err := strconv.Atoi(rest[1:])
	if rest[0] != sign || err != nil || n < 0 || n > rtMax-rtMin {
		return 0, bad
	}
	if sign == '-' {
		n = -n
	}
	return syscall.Signal(base + n), nil
}
