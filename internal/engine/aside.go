package engine

import (
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// What was asked of a machine by name stays in the record when a stratum that has nothing
// of the kind is forced, and counts again when a later move makes it a machine. Without
// force it is refused, as a system that was given certain hardware may need it.

// setAside takes that out of what a stratum that is forced is planned by, and says so.
func setAside(spec *api.Spec, at string) []string {
	notes := []string{}
	if !spec.Force || at == stratum.Machine {
		return notes
	}
	var kept []string
	if spec.Firmware != "" {
		kept, spec.Firmware = append(kept, "firmware "+spec.Firmware), ""
	}
	if spec.Hardware != (api.Hardware{}) {
		kept, spec.Hardware = append(kept, "hardware that was asked for by name"), api.Hardware{}
	}
	if len(kept) > 0 {
		notes = append(notes, "kept aside, for when it is a machine again: "+strings.Join(kept, ", "))
	}
	return notes
}

// detached refuses a move to where what is attached has no place.
func detached(rec environment.Record, at string) error {
	if len(rec.Devices) == 0 || at == stratum.Machine {
		return nil
	}
	var names []string
	for _, d := range rec.Devices {
		names = append(names, d.Name())
	}
	return fault.Conflictf("a %s has no place for what is attached: %s", at, strings.Join(names, ", ")).
		At("stratum").Help("detach it first: strata disk detach, strata card detach")
}
