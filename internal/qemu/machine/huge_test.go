package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

// TestAConfinedMachineLiesInHugePages boots one whose memory is all in huge pages, where
// the host has some.
func TestAConfinedMachineLiesInHugePages(t *testing.T) {
	require.Root(t)
	free := func() int {
		text, _ := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
		n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return n
	}
	s := made(t, Linux, Host{Accel: qemu.TCG})
	s.Memory.Size, s.Channels, s.HugePages = 128*unit.MiB, VirtioChannels, 2*unit.MiB
	before := free()
	require.Host(t, "hugepages", before >= 64, fmt.Sprintf("%d huge pages are free; sysctl vm.nr_hugepages makes some", before))
	r := start(t, s, options{user: 700000})
	r.hears("a")
	if taken := before - free(); taken != 64 {
		t.Errorf("%d huge pages are taken", taken)
	}
	r.quiet()
}
