package engine

import (
	"context"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Screen is the screen and the keyboard of a running machine.
type Screen = stratum.Screen

// Screen returns the screen of a running environment. Kinds: Missing, Conflict (it
// does not run), Unable where its stratum has none.
func (e *Engine) Screen(_ context.Context, ref string) (Screen, error) {
	en, err := e.find(ref)
	if err != nil {
		return nil, err
	}
	d, err := e.driver(en)
	if err != nil {
		return nil, err
	}
	if d.Capabilities()&stratum.CanScreen == 0 {
		return nil, fault.Unablef("a %s has no screen, and %s is one", d.Stratum(), en.name()).Help("a machine has one: use --stratum machine; what its main program writes: strata logs %s", en.name())
	}
	r, err := en.current("seen or typed")
	if err != nil {
		return nil, err
	}
	return r.live.(stratum.Screener).Screen(), nil
}
