package keeper

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
)

// keeperLimit is what one of many keepers may cost. Unit: KiB. Source: design.md,
// "at most 1.5 MiB PSS".
const keeperLimit = 1536

func TestFiftyIdleKeepersAreSmall(t *testing.T) {
	require.Host(t, "smaps_rollup", readable("/proc/self/smaps_rollup"), "the kernel does not tell proportional set sizes")
	var all []*live
	var starts []time.Duration
	for range 50 {
		s := newSpec(t, "")
		s.Payload.Args = []string{"sleep", "1000"}
		s.Payload.Path = "/bin/sleep"
		begun := time.Now()
		st, err := Start(within10(t), Options{Binary: binary, Spec: s})
		if err != nil {
			t.Fatal(err)
		}
		starts = append(starts, time.Since(begun))
		t.Cleanup(func() { st.Abort(within10(t)) })
		all = append(all, &live{Keeper: st.keeper})
	}
	eventually(t, "at most 1.5 MiB each", func() bool { return mean(t, all) <= keeperLimit })
	time.Sleep(2500 * time.Millisecond) // until the keepers have given back what their start took
	slices.Sort(starts)
	t.Logf("%d KiB of proportional set each; started in %v (median), %v (most)", mean(t, all), starts[25], starts[49])
}

func readable(path string) bool {
	_, err := os.ReadFile(path)
	return err == nil
}

func mean(t *testing.T, all []*live) int {
	sum := 0
	for _, r := range all {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(r.KeeperPID) + "/smaps_rollup")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nPss:")
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum / len(all)
}
