package environment

import "github.com/strata-project/strata/api"

// Device is a disk or a network card that was attached to a machine; one of the two is set.
type Device struct {
	Place int       `json:"place"` // on the board, from 0 on; no two have the same
	Disk  *api.Disk `json:"disk,omitempty"`
	Card  *api.Card `json:"card,omitempty"`
	Key   string    `json:"key,omitempty"` // of a card: what the network knows it by; it has the form of an id
	// Images are a disk's image and those that it lies over, as they are to stay, in the
	// words of its driver; empty where an earlier strata attached it, until it is started.
	Images []string `json:"images,omitempty"`

	// Pending is set while it is being plugged into what runs: whether it is there is for
	// the run to say.
	Pending bool `json:"pending,omitempty"`
}

// Name is what it is called inside its environment.
func (d Device) Name() string {
	if d.Card != nil {
		return d.Card.Name
	}
	return d.Disk.Name
}

// Link is an address, and by what the network knows who has it.
type Link struct {
	Key     string
	Address api.Address
}

// Links are all of the environment's addresses, its own before those of attached cards.
func (r Record) Links() (all []Link) {
	if r.Address.Network != "" {
		all = append(all, Link{r.ID, r.Address})
	}
	for _, d := range r.Devices {
		if d.Card != nil {
			all = append(all, Link{d.Key, d.Card.Address})
		}
	}
	return all
}
