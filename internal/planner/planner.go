package planner

import (
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// needs is every reason to virtualize: what it means, and the shallowest stratum
// that serves it.
var needs = []struct {
	name    string
	stratum string
	why     string
}{
	{"isolation", stratum.Zone, "namespaces and a user range of its own keep it apart"},
	{"density", stratum.Zone, "it shares the host's kernel and page cache"},
	{"own-init", stratum.Zone, "the template's init can be process 1 of a zone"},
	{"untrusted-code", stratum.Guest, "code that may attack the kernel must not share the host's"},
	{"own-kernel", stratum.Guest, "it runs a kernel of its own"},
	{"kernel-modules", stratum.Guest, "modules are loaded into a kernel of its own"},
	{"checkpoint", stratum.Guest, "its whole state can be written down"},
	{"live-migration", stratum.Guest, "its whole state can be moved while it runs"},
	{"foreign-os", stratum.Machine, "it is no Linux, or must not know that it is virtual"},
	{"stock-hardware", stratum.Machine, "it wants hardware as a shop sells it"},
	{"graphical-console", stratum.Machine, "it wants a screen"},
}

// depth orders the strata, shallowest first.
var depth = []string{stratum.Zone, stratum.Guest, stratum.Machine}

// Request is what a stratum is chosen for.
type Request struct {
	Stratum   string   // asked for by name; "": the planner's choice
	Needs     []string // in the user's words
	Available []string // strata that have a driver
}

// Choice is a stratum, and why it is that one.
type Choice struct {
	Stratum string
	Reason  string
}

// Choose returns the shallowest stratum that serves all needs.
// Kinds: Invalid (a need that is not known, a stratum too shallow for a need),
// Unable (no driver for the stratum that a need or the user asks for).
func Choose(r Request) (Choice, error) {
	least, reason, err := shallowest(r)
	if err != nil {
		return Choice{}, err
	}
	if r.Stratum == "" {
		return Choice{least, reason}, nil
	}
	if !slices.Contains(depth, r.Stratum) {
		return Choice{}, fault.Invalidf("%q is not a stratum", r.Stratum).At("stratum").Help("use one of: %s", strings.Join(depth, ", "))
	}
	if slices.Index(depth, r.Stratum) < slices.Index(depth, least) {
		return Choice{}, fault.Invalidf("stratum %s is too shallow: %s", r.Stratum, reason).At("stratum").Help("leave the stratum out, or ask for %s", least)
	}
	if !slices.Contains(r.Available, r.Stratum) {
		return Choice{}, fault.Unablef("stratum %s is not served by this strata", r.Stratum).At("stratum").Help("served: %s", strings.Join(r.Available, ", "))
	}
	return Choice{r.Stratum, "it was asked for by name"}, nil
}

// shallowest returns the depth that the needs call for.
func shallowest(r Request) (string, string, error) {
	least, reason := stratum.Zone, "the shallowest stratum serves, as nothing deeper was asked for"
	if len(r.Needs) > 0 {
		reason = "it is the shallowest that serves " + strings.Join(r.Needs, ", ")
	}
	var bad []error
	for i, need := range r.Needs {
		at := slices.IndexFunc(needs, func(n struct{ name, stratum, why string }) bool { return n.name == need })
		if at < 0 {
			bad = append(bad, fault.Invalidf("%q is not a need that is known", need).At("needs").Help("known needs: %s", strings.Join(Known(), ", ")))
			continue
		}
		n := needs[at]
		if slices.Contains(r.Needs[:i], need) {
			continue
		}
		if r.Stratum == "" && !slices.Contains(r.Available, n.stratum) {
			bad = append(bad, fault.Unablef("the need %s calls for stratum %s, which this strata does not serve: %s", need, n.stratum, n.why).At("needs").Help("served: %s; leave the need out if a shallower stratum will do", strings.Join(r.Available, ", ")))
			continue
		}
		if slices.Index(depth, n.stratum) > slices.Index(depth, least) {
			least, reason = n.stratum, "the need "+need+" calls for it: "+n.why
		}
	}
	return least, reason, fault.Join(bad...)
}

// Known returns the needs that are known.
func Known() []string {
	var names []string
	for _, n := range needs {
		names = append(names, n.name)
	}
	return names
}
