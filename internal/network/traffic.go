package network

import (
	"os"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// idLength is how many digits of an id a link's name has, see freeLink.
const idLength = 12

// Traffic is what an environment's card has received and sent since it has its
// link. Unit: bytes.
type Traffic struct {
	Received, Sent int64
}

// AllTraffic returns the traffic of every environment that has a link, by id. It reads one
// file, however many there are.
func (h *Host) AllTraffic() (map[string]Traffic, error) {
	f, err := os.Open("/proc/self/net/dev")
	if err != nil {
		return nil, fault.Wrap(err, "read the counters of links")
	}
	defer f.Close()
	h.counters.Lock()
	defer h.counters.Unlock()
	h.counters.text.Reset() // it is asked for every second: its room is used again
	if _, err := h.counters.text.ReadFrom(f); err != nil {
		return nil, fault.Wrap(err, "read the counters of links")
	}
	return parseTraffic(h.counters.text.String()), nil
}

// The fields behind a link's name. Source: net/core/net-procfs.c, dev_seq_printf_stats.
const (
	devReceived = 0
	devSent     = 8
)

// parseTraffic reads /proc/net/dev. What the host's end has sent is what the
// environment has received.
func parseTraffic(text string) map[string]Traffic {
	all := map[string]Traffic{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimLeft(line, " "), ":")
		id, ours := strings.CutPrefix(name, linkPrefix)
		if !ok || !ours || len(id) != idLength+1 {
			continue
		}
		var in, out int64
		at := 0
		for word := range strings.FieldsSeq(rest) { // every second, of many links: without garbage
			switch at {
			case devReceived:
				out, _ = strconv.ParseInt(word, 10, 64)
			case devSent:
				in, _ = strconv.ParseInt(word, 10, 64)
			}
			if at++; at > devSent {
				break
			}
		}
		if at <= devSent {
			continue
		}
		one := all[id[:idLength]] // a link of an earlier run may be going still
		all[id[:idLength]] = Traffic{max(one.Received, in), max(one.Sent, out)}
	}
	return all
}
