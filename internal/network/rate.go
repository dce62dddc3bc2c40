package network

import (
	"github.com/strata-project/strata/internal/network/nft"
)

// Rate is the most that an environment receives and sends in a second, by its link.
// Unit: bytes; 0: no limit.
type Rate = nft.Rate

// SetRate limits id's link, at once and for as long as it is connected, in place of what
// was said before. Nothing happens where it is not connected. Kinds: Unable.
func (h *Host) SetRate(id string, r Rate) error {
	h.mu.Lock()
	e, ok := h.environments[id]
	if late, waits := h.unsynced[id]; waits { // it is to be taken over yet
		late.Rate = r
		h.unsynced[id] = late
	}
	if !ok || e.link == "" || e.rate == r {
		h.mu.Unlock()
		return nil
	}
	link := e.link
	h.mu.Unlock()
	if err := h.table.SetRate(link, r); err != nil {
		return unable(err, "limit the rate of %s", link)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e.link == link {
		e.rate = r
	}
	return nil
}

// Dropped tells how many packets, or larger pieces, id's limits have refused.
func (h *Host) Dropped(id string) nft.Dropped {
	h.mu.Lock()
	var link string
	if e, ok := h.environments[id]; ok && e.rate != (Rate{}) {
		link = e.link
	}
	h.mu.Unlock()
	if link == "" {
		return nft.Dropped{}
	}
	return h.table.Dropped(link)
}

// wantedRates are the limits of all that is connected, by link.
func (h *Host) wantedRates() map[string]Rate {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]Rate{}
	for _, e := range h.environments {
		if e.link != "" && e.rate != (Rate{}) {
			all[e.link] = e.rate
		}
	}
	return all
}
