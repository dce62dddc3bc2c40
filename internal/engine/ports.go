package engine

import (
	"strconv"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
)

// ports knows which host ports environments hold, from their start to their end.
// It is guarded by Engine.mu.
type ports map[uint16][]portHolder

type portHolder struct {
	port api.Port
	id   string
}

// take holds all of wanted for id, or none. name tells the name of an id.
// Kinds: Conflict, saying who has it.
func (p ports) take(id string, wanted []api.Port, name func(id string) string) error {
	for i, w := range wanted {
		for _, h := range p[w.HostPort] {
			if h.id != id && environment.PortsMeet(w, h.port) {
				return fault.Conflictf("host port %s is published by environment %s", environment.PortName(w), name(h.id)).
					At("ports[" + itoa(i) + "]").Help("stop it first, or publish another host port")
			}
		}
	}
	for _, w := range wanted {
		p[w.HostPort] = append(p[w.HostPort], portHolder{w, id})
	}
	return nil
}

// give lets go of all that id holds.
func (p ports) give(id string) {
	for number, holders := range p {
		kept := holders[:0]
		for _, h := range holders {
			if h.id != id {
				kept = append(kept, h)
			}
		}
		if len(kept) == 0 {
			delete(p, number)
			continue
		}
		p[number] = kept
	}
}

// takePorts holds the ports of an environment that is about to start.
func (e *Engine) takePorts(en *entry) error {
	wanted := en.snapshot().Spec.Ports
	if len(wanted) == 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ports.take(en.id(), wanted, func(id string) string {
		if other := e.ids[id]; other != nil {
			return other.name()
		}
		return id
	})
}

func (e *Engine) givePorts(en *entry) {
	if len(en.snapshot().Spec.Ports) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ports.give(en.id())
}

func itoa(i int) string { return strconv.Itoa(i) }
