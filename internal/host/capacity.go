package host

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Size is how large this host is, and how much of its memory is in use now.
type Size struct {
	Memory unit.Size // in all
	Used   unit.Size // what cannot be given to somebody else without swapping
	CPUs   unit.CPUs // that this process may use
}

// Measure returns this host's size. Kinds: Unable.
func Measure() (Size, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Size{}, fault.Unablef("measure the host's memory: %w", err)
	}
	total, available := meminfo(string(text), "MemTotal"), meminfo(string(text), "MemAvailable")
	if total <= 0 {
		return Size{}, fault.Unablef("/proc/meminfo does not say how much memory there is")
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return Size{}, fault.Unablef("count the host's processors: %w", err)
	}
	return Size{total, max(total-available, 0), unit.CPUs(set.Count() * 1000)}, nil
}

// meminfo returns one line, which is in KiB; 0 where it is missing.
// Source: Documentation/filesystems/proc.rst, meminfo.
func meminfo(text, key string) unit.Size {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if name == key {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			return unit.Size(n * unit.KiB)
		}
	}
	return 0
}
