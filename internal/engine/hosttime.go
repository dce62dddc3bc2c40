package engine

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/resource"
)

// hostTime tells how much of the host's processors was used since it was last asked.
type hostTime struct {
	used int64 // nanoseconds
	at   time.Time
}

// usage looks at the whole host. What it has guaranteed is not in it.
func (h *hostTime) usage(now time.Time) api.HostUsage {
	u := api.HostUsage{CPUs: runtime.NumCPU()}
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		used := usedTime(string(text))
		if since := now.Sub(h.at); !h.at.IsZero() && since > 0 {
			u.CPU = max(0, (used-h.used)*1000/int64(since))
		}
		h.used, h.at = used, now
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		memory(string(text), &u)
	}
	for name, p := range resource.HostPressure() {
		if u.Pressure == nil {
			u.Pressure = map[string]api.Pressure{}
		}
		u.Pressure[name] = api.Pressure{Some: p.Some, Full: p.Full}
	}
	return u
}

// usedTime sums the first line of /proc/stat but for idle, waiting for disks, and
// guests, whose time is in user's. Unit: nanoseconds. Source: proc(5).
func usedTime(text string) (sum int64) {
	const tick = int64(time.Second) / 100 // linux/param.h, USER_HZ
	line, _, _ := strings.Cut(text, "\n")
	for i, word := range strings.Fields(line) {
		if i == 4 || i == 5 || i > 8 {
			continue
		}
		n, _ := strconv.ParseInt(word, 10, 64) // 0 for "cpu"
		sum += n * tick
	}
	return sum
}

// memory parts what /proc/meminfo tells into used, shared and free.
func memory(text string, u *api.HostUsage) {
	var cached, shmem int64
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kilo, _ := strconv.ParseInt(f[1], 10, 64)
		switch n := kilo << 10; f[0] {
		case "MemTotal:":
			u.Memory = n
		case "MemFree:":
			u.MemoryFree = n
		case "Buffers:", "Cached:", "SReclaimable:":
			cached += n
		case "Shmem:": // counted as cached, but the kernel cannot give it back
			shmem = n
		}
	}
	u.MemoryShared = max(0, min(cached-shmem, u.Memory-u.MemoryFree))
	u.MemoryUsed = u.Memory - u.MemoryFree - u.MemoryShared
}
