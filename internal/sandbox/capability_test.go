package sandbox

import (
	"slices"
	"testing"
)

func TestCapabilityNumbers(t *testing.T) {
	if n := len(names); n != 41 {
		t.Errorf("%d capabilities have names", n)
	}
	for _, set := range [][]string{App, System} {
		if got := Numbers(set); len(got) != len(set) || !slices.IsSorted(got) {
			t.Errorf("%v has numbers %v", set, got)
		}
	}
	for _, host := range []string{"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_BPF", "CAP_PERFMON", "CAP_MAC_ADMIN", "CAP_SYSLOG"} {
		if slices.Contains(System, host) {
			t.Errorf("an init has %s, which the kernel checks against the host", host)
		}
	}
	var bits uint64
	for _, n := range Numbers(App) {
		bits |= 1 << n
	}
	if bits != 0xa80425fb { // what `docker run` shows as CapEff
		t.Errorf("apps have %#x", bits)
	}
}
