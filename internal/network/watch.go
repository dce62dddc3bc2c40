package network

import (
	"context"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/strata-project/strata/internal/fault"
)

// checkEvery is how often Watch looks at bridges and tables, a request for each; links are
// listed where one of them was gone, and each thorough time.
const (
	checkEvery = 5 * time.Second
	thorough   = 6
)

// Watch puts right, until ctx ends, what others take away from those who are connected:
// bridges, the nft tables, a link's place on its bridge. Who finds his link gone cannot be
// helped while he runs: lost is told of him, once. It may have been himself.
func (h *Host) Watch(ctx context.Context, lost func(id string)) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	w := watch{h: h, missing: map[string]string{}, told: map[string]string{}}
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !h.synced() {
			continue
		}
		for _, id := range w.look(ctx, n%thorough == 0) {
			lost(id)
		}
	}
}

// watch is what Watch knows of earlier looks: links that were not there, by id.
type watch struct {
	h             *Host
	missing, told map[string]string
}

// look looks once, and returns who has lost his link: that was missing the last time, too,
// as the link of one that starts or ends is for a moment.
func (w *watch) look(ctx context.Context, whole bool) (lost []string) {
	h := w.h
	wrong, err := h.mend(ctx)
	if err != nil {
		h.log.Warn("what was removed of a network is not put right", "err", err)
	}
	if !wrong && !whole && len(w.missing) == 0 {
		return nil
	}
	missing, err := h.rejoin(ctx)
	if err != nil {
		h.log.Warn("links are not put right", "err", err)
	}
	for id, link := range missing {
		if w.missing[id] == link && w.told[id] != link {
			w.told[id] = link
			lost = append(lost, id)
		}
	}
	for id, link := range w.told { // another run has another link
		if missing[id] != link {
			delete(w.told, id)
		} else {
			delete(missing, id) // which is no reason to look each time
		}
	}
	w.missing = missing
	return lost
}

// mend makes the bridges and tables again that are gone and in use, and tells whether any
// was.
func (h *Host) mend(ctx context.Context) (wrong bool, err error) {
	h.mu.Lock()
	used := map[string]*networkState{}
	for _, e := range h.environments {
		if n := h.networks[e.address.Network]; e.link != "" && n != nil {
			used[n.Name] = n
		}
	}
	h.mu.Unlock()
	if len(used) == 0 {
		return false, nil
	}
	var failed []error
	for name, n := range used {
		index, err := h.rtnl.linkIndex(n.Bridge)
		if err != nil {
			return wrong, err
		}
		again, err := h.rebuild(ctx, name, n, index)
		wrong = wrong || again
		failed = append(failed, err)
	}
	present, err := h.table.Present()
	if err == nil && !present {
		wrong = true
		h.log.Warn("the nft tables were removed by somebody else, and are made again")
		h.ensuring.Lock()
		err = h.match()
		h.ensuring.Unlock()
	}
	return wrong, fault.Join(append(failed, err)...)
}

// rebuild makes a bridge again that has not the index that it had.
func (h *Host) rebuild(ctx context.Context, name string, n *networkState, index int32) (bool, error) {
	h.ensuring.Lock()
	defer h.ensuring.Unlock()
	h.mu.Lock()
	right := h.networks[name] != n || index != 0 && n.index == index
	h.mu.Unlock()
	if right { // or it was removed meanwhile
		return false, nil
	}
	h.log.Warn("a bridge was removed by somebody else, and is made again", "network", name, "bridge", n.Bridge)
	_, err := h.ensure(ctx, name)
	return true, err
}

// rejoin makes links ports of their bridges that are not, and returns those that are not
// there at all, by id.
func (h *Host) rejoin(ctx context.Context) (missing map[string]string, err error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fault.Wrap(err, "list links")
	}
	masters := map[string]int{}
	for _, l := range links {
		masters[l.Attrs().Name] = l.Attrs().MasterIndex
	}
	missing = map[string]string{}
	var stray []linkPlan
	networks := map[string]string{}
	h.mu.Lock()
	for id, e := range h.environments {
		n := h.networks[e.address.Network]
		if e.link == "" || n == nil || n.index == 0 {
			continue
		}
		master, there := masters[e.link]
		if !there {
			missing[id] = e.link
			continue
		}
		p, err := n.plan(e.link, e.address)
		if err == nil && master != int(n.index) {
			p.Hairpin = len(e.ports) > 0
			stray, networks[e.link] = append(stray, p), n.Name
		}
	}
	h.mu.Unlock()
	var failed []error
	for _, p := range stray {
		err := h.makeLink(ctx, p, linkPlan.enslave, networks[p.Link])
		if err == nil {
			err = h.notice(p)
		}
		failed = append(failed, fault.Wrap(err, "connect %s again", p.Link))
	}
	if len(stray) > 0 {
		h.log.Warn("links were taken from their bridges by somebody else, and are put back", "links", len(stray))
	}
	return missing, fault.Join(failed...)
}
