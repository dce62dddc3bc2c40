package network

import (
	"context"
	"maps"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// Running is an environment that runs, as its driver and record tell.
type Running struct {
	PID     int  // a process in its network namespace
	Tap     bool // it was joined by ConnectTap, so PID's namespace is none of its network's
	Address Address
	Ports   []Port
	Rate    Rate
}

// idDigits is the length of an environment's id.
const idDigits = 12

// Sync makes the host what it should be, once, when a daemon starts: what runs
// keeps its link and ports, or gets back what is missing; links, published ports
// and names of everything else go. Every id in running must be Reserved.
// Environments that stay lose no packet. Where nothing runs and nothing is on
// the host, nothing is touched. Where it cannot be seen what is on the host,
// nothing is touched either, and the next Ensure or Connect syncs first.
func (h *Host) Sync(ctx context.Context, running map[string]Running) error {
	h.syncing.Lock()
	defer h.syncing.Unlock()
	h.mu.Lock()
	h.unsynced = maps.Clone(running)
	if h.unsynced == nil {
		h.unsynced = map[string]Running{}
	}
	h.mu.Unlock()
	return h.sync(ctx)
}

// SyncLate makes up for a Sync that could not see what is on the host: what runs
// would be nobody's when the filter is matched. Without one it does nothing.
// Kinds: Unable.
func (h *Host) SyncLate(ctx context.Context) error {
	if h.synced() {
		return nil
	}
	h.syncing.Lock()
	defer h.syncing.Unlock()
	if h.synced() {
		return nil
	}
	err := h.sync(ctx)
	if !h.synced() {
		return unable(err, "look at what is on the host")
	}
	if err != nil { // what is left is others' own
		h.log.Error("networks were restored late, and not all", "err", err)
	}
	return nil
}

func (h *Host) synced() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.unsynced == nil
}

// sync does the work, with h.syncing held.
func (h *Host) sync(ctx context.Context) error {
	present, ports, err := h.look()
	if err != nil {
		return err
	}
	running, leftover, missing := h.adopt(ports)
	var failed []error
	used := map[string]bool{}
	for _, r := range running {
		used[r.Address.Network] = true
	}
	for _, p := range ports {
		used[h.networkOf(p.bridge)] = true
	}
	if present {
		for _, n := range h.Networks() {
			if hasLink(n.Bridge) {
				used[n.Name] = true
			}
		}
	}
	delete(used, "")
	for name := range used {
		failed = append(failed, h.Ensure(ctx, name))
	}
	if present || len(used) > 0 {
		h.ensuring.Lock()
		failed = append(failed, h.match())
		h.ensuring.Unlock()
	}
	for _, id := range missing {
		r := running[id]
		err := h.retake(ctx, id, r)
		if err == nil {
			err = h.SetRate(id, r.Rate)
		}
		failed = append(failed, fault.Wrap(err, "connect %s again", id))
	}
	for _, link := range leftover {
		h.reap(link)
	}
	return fault.Join(failed...)
}

// look reads what is on the host: whether the filter is, and strata's links.
func (h *Host) look() (present bool, ports []bridgePort, err error) {
	h.mu.Lock()
	bridges := h.bridges()
	h.mu.Unlock()
	if present, err = h.table.Present(); err != nil {
		return false, nil, err
	}
	ports, err = portsOf(bridges)
	return present, ports, err
}

// adopt takes over the links that are there, and says what runs, which links are
// nobody's, and which ids have none.
func (h *Host) adopt(ports []bridgePort) (running map[string]Running, leftover, missing []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	running, h.unsynced = h.unsynced, nil
	for _, p := range ports {
		id := strings.TrimPrefix(p.name, linkPrefix)
		if len(id) > idDigits {
			id = id[:idDigits]
		}
		r, runs := running[id]
		e, known := h.environments[id]
		n := h.networks[r.Address.Network]
		if !runs || !known || n == nil || n.Bridge != p.bridge || e.link != "" && e.link != p.name {
			leftover = append(leftover, p.name)
			h.watched[p.name] = true
			continue
		}
		e.link, e.ports, e.rate = p.name, append([]Port(nil), r.Ports...), r.Rate
		e.elements = e.wanted()
	}
	for id, r := range running {
		e, known := h.environments[id]
		if !known || e.link != "" || r.PID == 0 || r.Address.Network == "" {
			continue
		}
		missing = append(missing, id)
	}
	return running, leftover, missing
}

func (h *Host) networkOf(bridge string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.networks {
		if n.Bridge == bridge {
			return n.Name
		}
	}
	return ""
}

func hasLink(name string) bool {
	var r rtnl
	defer r.close()
	index, err := r.linkIndex(name)
	return err == nil && index != 0
}
