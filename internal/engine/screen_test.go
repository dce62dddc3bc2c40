package engine_test

import (
	"context"
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// screened is a driver whose runs have a screen.
type screened struct{ *enginetest.Driver }

func (screened) Capabilities() stratum.Capability { return stratum.CanScreen }

func (s screened) Start(ctx context.Context, p stratum.Plan, o stratum.StartOptions) (stratum.Live, error) {
	live, err := s.Driver.Start(ctx, p, o)
	if err != nil {
		return nil, err
	}
	return screenedRun{live}, nil
}

// screenedRun has a screen that does nothing.
type screenedRun struct{ stratum.Live }

type dark struct{ stratum.Screen }

func (screenedRun) Screen() stratum.Screen { return dark{} }

func TestOnlySomeStrataHaveAScreen(t *testing.T) {
	l := newLab(t)
	l.run(api.Spec{Name: "web"})
	_, err := l.Screen(t.Context(), "web")
	if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "a zone has no screen, and web is one") || !strings.Contains(fault.All(err)[0].Hint, "--stratum machine") {
		t.Errorf("a zone's: %v", err)
	}
	if _, err := l.Screen(t.Context(), "none"); !fault.Is(err, fault.Missing) {
		t.Errorf("one that is not there: %v", err)
	}
	l.driver = screened{l.driver.(*enginetest.Driver)}
	l.restart()
	l.run(api.Spec{Name: "pc"})
	var s engine.Screen
	if s, err = l.Screen(t.Context(), "pc"); err != nil || s != (dark{}) {
		t.Errorf("a machine's: %v, %v", s, err)
	}
	l.create(api.Spec{Name: "off"})
	if _, err := l.Screen(t.Context(), "off"); !fault.Is(err, fault.Conflict) {
		t.Errorf("while it does not run: %v", err)
	}
}
