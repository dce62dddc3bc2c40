package engine

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/stratum"
)

// How often a published port of a foreign system is tried, and how long.
const (
	portLook     = 2 * time.Second
	portPatience = 2 * time.Second
)

// comesUp is closed once a run is up. Of a foreign system it is a guest agent's answer
// that tells, or a published TCP port that is listened on, whichever comes first; where it
// can have neither, that it runs.
func (e *Engine) comesUp(ctx context.Context, en *entry, r *run) <-chan struct{} {
	rec := en.snapshot()
	ports := openPorts(rec)
	if rec.Spec.Foreign == nil || len(ports) == 0 {
		return r.live.Ready()
	}
	up := make(chan struct{})
	var agent <-chan struct{} // nil: nobody will answer
	if a, ok := r.live.(stratum.Answering); ok && a.Awaits() {
		agent = r.live.Ready()
	}
	go func() {
		tick := time.NewTicker(portLook)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-agent:
				close(up)
				return
			case <-tick.C:
			}
			for _, at := range ports {
				if listens(ctx, at) {
					close(up)
					return
				}
			}
		}
	}()
	return up
}

// openPorts are the published TCP ports of an environment, by its own address.
func openPorts(rec environment.Record) (all []string) {
	own, err := netip.ParsePrefix(rec.Address.IPv4)
	if err != nil {
		return nil
	}
	for _, p := range rec.Spec.Ports {
		if p.Protocol == "" || p.Protocol == "tcp" {
			all = append(all, net.JoinHostPort(own.Addr().String(), strconv.Itoa(int(p.Port))))
		}
	}
	return all
}

// listens tells whether somebody takes a connection, which is closed at once.
func listens(ctx context.Context, at string) bool {
	ctx, cancel := context.WithTimeout(ctx, portPatience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}
