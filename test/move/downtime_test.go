package move

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// downtimeRounds is how often everything is taken; medians are compared.
const downtimeRounds = 5

// TestAMoveIsDownNoLongerThanAStopAndAStart takes, in turn, an ordinary stop and an ordinary
// start of environments that stay where they are, and moves of one like them. A move may add what
// is given, and by how much the ordinary ones differ among themselves on this host now.
func TestAMoveIsDownNoLongerThanAStopAndAStart(t *testing.T) {
	require.Machines(t)
	require.Tool(t, qemu)
	b := newBed(t, bed.Kernel)
	for name, at := range map[string]string{"zone": "zone", "guest": "guest", "moves": "zone"} {
		b.Run("create", "--name", name, "--stratum", at, "--memory", "128M", "busybox", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	}
	c := ordinary{t, client.New(b.Places.Socket)}
	for _, first := range []string{"guest", "zone", "moves"} { // what is made once is made
		c.start(first)
	}
	c.stop("guest")
	for _, to := range []string{"guest", "zone"} {
		move(t, b, "moves", to)
	}
	sums, down := map[string][]time.Duration{}, map[string][]time.Duration{}
	for range downtimeRounds { // never two guests at a time
		fromZone, toGuest := c.stop("zone"), c.start("guest")
		fromGuest, toZone := c.stop("guest"), c.start("zone")
		sums["guest"] = append(sums["guest"], fromZone+toGuest)
		sums["zone"] = append(sums["zone"], fromGuest+toZone)
		for _, to := range []string{"guest", "zone"} {
			down[to] = append(down[to], time.Duration(move(t, b, "moves", to).Downtime))
		}
	}
	for _, to := range []string{"guest", "zone"} {
		of, is := sorted(sums[to]), sorted(down[to])
		least, most := of[0], of[len(of)-1]
		ordinary, moved := of[len(of)/2], is[len(is)/2]
		t.Logf("to %s: a stop and a start take %v (%v to %v), a move is down for %v (%v to %v): %v more", to,
			round(ordinary), round(least), round(most), round(moved), round(is[0]), round(is[len(is)-1]), round(moved-ordinary))
		if moved > ordinary+given+(most-least) {
			t.Errorf("to %s: a move is down for %v; an ordinary stop and start take %v (%v to %v), and a move may take %v more", to, moved, ordinary, least, most, given)
		}
	}
	b.Run("rm", "-f", "zone", "guest", "moves")
}

func sorted(d []time.Duration) []time.Duration { return slices.Sorted(slices.Values(d)) }

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// ordinary stops and starts environments as any client does, and tells how long the daemon took.
type ordinary struct {
	t *testing.T
	*client.Client
}

func (o ordinary) take(what string, do func(context.Context) error) time.Duration {
	o.t.Helper()
	ctx, cancel := context.WithTimeout(o.t.Context(), require.Patience(boots))
	defer cancel()
	begin := time.Now()
	if err := do(ctx); err != nil {
		o.t.Fatalf("%s: %v", what, err)
	}
	return time.Since(begin)
}

func (o ordinary) start(name string) time.Duration {
	o.t.Helper()
	return o.take("start "+name, func(ctx context.Context) error { return o.Start(ctx, name) })
}

func (o ordinary) stop(name string) time.Duration {
	o.t.Helper()
	return o.take("stop "+name, func(ctx context.Context) error { return o.Stop(ctx, name, "", nil) })
}
