package vmagent

import (
	"github.com/strata-project/strata/internal/vmagent/spec"
)

func (a *agent) launch(r *spec.Run) error {
	if r.Idle {
		return nil
	}
	return nil
}

const companionName = "@strata-agent"

func companion() int { return 1 }
