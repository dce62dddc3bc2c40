package environment

import (
	"maps"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/settings"
)

// Change returns spec as u changes it. spec itself is left alone, and so are the
// maps and slices in it. Kinds: Invalid, with all faults.
func Change(spec api.Spec, u api.Update, b Bounds) (api.Spec, error) {
	spec.Resources = settings.Apply(spec.Resources, u)
	if u.Restart != nil {
		spec.Restart = *u.Restart
	}
	if len(u.Labels)+len(u.RemoveLabels) > 0 {
		labels := maps.Clone(spec.Labels)
		if labels == nil {
			labels = map[string]string{}
		}
		for _, key := range u.RemoveLabels {
			delete(labels, key)
		}
		maps.Copy(labels, u.Labels)
		spec.Labels = labels
	}
	var c check
	c.resources(spec.Resources, b)
	c.limitless(spec)
	if spec.Foreign != nil {
		c.templateOnly(spec)
	}
	c.restart(spec.Restart, spec.AutoRemove)
	c.labels(spec.Labels)
	return spec, fault.Join(c.bad...)
}
