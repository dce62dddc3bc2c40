package planner

import (
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// Label is where a template names its needs, separated by commas.
const Label = "strata.need"

// maxLabel bounds what is read of a template's label, which is hostile. Unit: bytes.
const maxLabel = 4096

// NotMeasured is the price of what was not measured: none is ever made up.
const NotMeasured = "not measured"

// Graphical is the console of a spec that is a screen.
const Graphical = "graphical"

// Host is what a choice depends on besides what was asked.
type Host struct {
	Strata []string                // those that have a driver
	Lacks  map[string]*fault.Error // by stratum: what the host has not that it takes; Missing where strata can fetch it
	KVM    bool                    // virtual processors run at the host's speed
	NoKVM  string                  // why not
}

// Choose returns the shallowest stratum that serves all needs of spec and of the
// template t. prices, by stratum, are shown and decide nothing.
// Kinds: Invalid (an unknown need, needs that contradict, a stratum that does not
// serve a need), Unable or Missing (what the stratum takes is not here).
func Choose(spec api.Spec, t api.Template, h Host, prices map[string]string) (api.Choice, error) {
	if spec.Stratum != "" && depthOf(spec.Stratum) < 0 {
		return api.Choice{}, fault.Invalidf("%q is not a stratum", spec.Stratum).At("stratum").Help("use one of: %s", strings.Join(depth, ", "))
	}
	if spec.Force && spec.Stratum == "" {
		return api.Choice{}, fault.Invalidf("force has nothing to force: no stratum was named").At("force").Help("name one, such as --stratum zone")
	}
	all, err := gather(spec, t)
	if err != nil {
		return api.Choice{}, err
	}
	if err := contradiction(all); err != nil && !spec.Force {
		return api.Choice{}, err
	}
	c := api.Choice{Needs: all, Others: []api.Depth{}}
	if spec.Stratum != "" {
		err = byName(&c, spec, h)
	} else {
		err = shallowest(&c, spec, h)
	}
	if err != nil {
		return api.Choice{}, err
	}
	c.Price = price(prices, c.Stratum)
	c.Others = others(c, h, prices)
	return c, nil
}

// gather returns every need once, and who has it: the user before the template,
// and that before options. Kinds: Invalid (a need that is not known).
func gather(spec api.Spec, t api.Template) ([]api.Wanted, error) {
	all := []api.Wanted{}
	var bad []error
	add := func(name, from string) {
		n := named(name)
		if n == nil {
			bad = append(bad, unknown(name, from))
		} else if !slices.ContainsFunc(all, func(w api.Wanted) bool { return w.Need == name }) {
			all = append(all, api.Wanted{Need: name, From: from, Stratum: n.stratum})
		}
	}
	for _, name := range spec.Needs {
		add(name, "asked")
	}
	label := t.Config.Labels[Label]
	if len(label) > maxLabel {
		return nil, fault.Invalidf("the template's label %s is longer than %d bytes", Label, maxLabel).At("template").Help("make the template with a shorter one")
	}
	for name := range strings.SplitSeq(label, ",") {
		if name = strings.TrimSpace(name); name != "" {
			add(name, "template")
		}
	}
	for _, i := range implied {
		if i.given(spec) {
			add(i.need, i.option)
		}
	}
	return all, fault.Join(bad...)
}

// Asks tells whether anything of spec or t speaks for one stratum rather than another.
// What a host has beyond zones need not be looked at where nothing does.
func Asks(spec api.Spec, t api.Template) bool {
	if spec.Stratum != "" || len(spec.Needs) > 0 || t.Config.Labels[Label] != "" {
		return true
	}
	for _, i := range implied {
		if i.given(spec) {
			return true
		}
	}
	return false
}

// implied are the options that only some strata can have.
var implied = []struct {
	option string
	given  func(api.Spec) bool
	need   string
}{
	{"--kernel", func(s api.Spec) bool { return s.Kernel != "" }, "own-kernel"},
	{"--module", func(s api.Spec) bool { return len(s.Modules) > 0 }, "kernel-modules"},
	{"--console graphical", func(s api.Spec) bool { return s.Console == Graphical }, "graphical-console"},
	{"--firmware", func(s api.Spec) bool { return s.Firmware != "" }, "own-firmware"},
	{"--board", func(s api.Spec) bool { return s.Hardware.Board != "" }, "stock-hardware"},
	{"--disk-bus", func(s api.Spec) bool { return s.Hardware.DiskBus != "" }, "stock-hardware"},
	{"--nic-model", func(s api.Spec) bool { return s.Hardware.Card != "" }, "stock-hardware"},
	{"--agent-port", func(s api.Spec) bool { return s.Hardware.AgentPort != "" }, "stock-hardware"},
	{"--cpu-model", func(s api.Spec) bool { return s.Hardware.CPUModel != "" }, "stock-hardware"},
	{"--nested", func(s api.Spec) bool { return s.Hardware.Nested }, "stock-hardware"},
	{"--hyperv", func(s api.Spec) bool { return s.Hardware.HyperV }, "stock-hardware"},
	{"--memory-max", func(s api.Spec) bool { return s.Hardware.MemoryMax != 0 }, "stock-hardware"},
	{"--tpm", func(s api.Spec) bool { return s.Hardware.TPM }, "stock-hardware"},
	{"--disk-image", func(s api.Spec) bool { return s.Foreign != nil && s.Foreign.DiskImage != "" }, "foreign-os"},
	{"--iso", func(s api.Spec) bool { return s.Foreign != nil && s.Foreign.DiskImage == "" }, "foreign-os"},
}

func unknown(name, from string) error {
	field, whose := "needs", "known"
	if from == "template" {
		field, whose = "template", "known, and the template's label "+Label+" names it"
	}
	e := fault.Invalidf("%q is not a need that is %s", name, whose).At(field)
	if near := nearest(name); near != nil {
		return e.Help("nearest: %s; all of them: strata needs", strings.Join(near, ", "))
	}
	return e.Help("known needs: %s", strings.Join(Known(), ", "))
}

// shallowest chooses by needs alone.
func shallowest(c *api.Choice, spec api.Spec, h Host) error {
	least, cause := stratum.Zone, ""
	for _, w := range c.Needs {
		if n := named(w.Need); n.later {
			return fault.Unablef("the need %s%s is one that no stratum of this version serves", w.Need, owner(w)).At("needs").Help("leave the need out, or name a stratum and force it: --stratum %s --force", n.stratum)
		}
		if depthOf(w.Stratum) > depthOf(least) {
			least, cause = w.Stratum, w.Need
		}
	}
	at, lack := available(least, cause, h)
	if at == "" {
		return lack
	}
	for _, w := range c.Needs { // before anything is fetched for what is refused then
		if problem := unserved(*named(w.Need), at, spec, h); problem != nil {
			return problem.refusal(w, at)
		}
	}
	if lack != nil {
		return lack
	}
	c.Stratum, c.Need = at, cause
	switch {
	case at != least:
		c.Reason = "it is the shallowest here that serves " + cause + ", since " + least + " is not to be had"
	case cause != "":
		c.Reason = "the need " + cause + " calls for it: " + named(cause).why
	case len(c.Needs) > 0:
		c.Reason = "it is the shallowest that serves " + list(c.Needs)
	default:
		c.Reason = "the shallowest stratum serves, as nothing deeper was asked for"
	}
	return nil
}

// contradiction refuses needs of which no stratum serves both, before anything else is
// looked at: no host and no later version would.
func contradiction(all []api.Wanted) error {
	least, cause := stratum.Zone, ""
	for _, w := range all {
		if depthOf(w.Stratum) > depthOf(least) {
			least, cause = w.Stratum, w.Need
		}
	}
	for _, w := range all {
		if most := named(w.Need).deepest; most != "" && depthOf(most) < depthOf(least) {
			return fault.Invalidf("the needs %s and %s contradict: %s calls for stratum %s, and %s is served by %s at most", w.Need, cause, cause, least, w.Need, most).At("needs").Help("leave one of the two out")
		}
	}
	return nil
}

// available returns the shallowest stratum from least on that the host can run.
// One that only wants something fetched is not passed over: it comes with what it lacks.
func available(least, cause string, h Host) (string, error) {
	for _, d := range depth[depthOf(least):] {
		if lack := h.Lacks[d]; slices.Contains(h.Strata, d) && (lack == nil || lack.Kind == fault.Missing) {
			return d, lacking(d, cause, h)
		}
	}
	return "", lacking(least, cause, h)
}

// lacking tells what stands against a stratum on this host.
func lacking(d, cause string, h Host) error {
	what := "stratum " + d
	if cause != "" {
		what = "the need " + cause + " calls for stratum " + d + " (" + named(cause).why + "), which"
	}
	if !slices.Contains(h.Strata, d) {
		e := fault.Unablef("%s is not served by this strata", what)
		if cause == "" {
			return e.At("stratum").Help("served: %s", strings.Join(h.Strata, ", "))
		}
		return e.At("needs").Help("served: %s; leave the need out if a shallower stratum will do", strings.Join(h.Strata, ", "))
	}
	if lack := h.Lacks[d]; lack != nil {
		if cause == "" {
			return lack
		}
		return fault.New(lack.Kind, "%s this host cannot run yet: %s", what, lack.Message).At(lack.Field).Help("%s", lack.Hint)
	}
	return nil
}

// byName takes the stratum that the user named, where it serves all needs or is forced.
func byName(c *api.Choice, spec api.Spec, h Host) error {
	lack := lacking(spec.Stratum, "", h)
	if lack != nil && !fault.Is(lack, fault.Missing) {
		return lack
	}
	var bad []error
	for _, w := range c.Needs {
		if problem := unserved(*named(w.Need), spec.Stratum, spec, h); problem != nil {
			bad = append(bad, problem.refusal(w, spec.Stratum))
			c.Unmet = append(c.Unmet, w.Need)
		}
	}
	if !spec.Force && bad != nil {
		return fault.Join(bad...)
	}
	if lack != nil { // what is to be fetched first
		return lack
	}
	c.Stratum, c.Reason = spec.Stratum, "it was asked for by name"
	if c.Unmet != nil {
		c.Reason = "it was forced by name, though it does not serve " + strings.Join(c.Unmet, ", ")
	}
	return nil
}

// gap is why a stratum does not serve a need.
type gap struct {
	kind   fault.Kind
	says   string
	remedy string
	field  string
}

func unserved(n need, at string, spec api.Spec, h Host) *gap {
	switch {
	case n.later:
		return &gap{kind: fault.Unable, field: "needs", says: "no stratum of this version serves it", remedy: "leave the need out"}
	case depthOf(at) < depthOf(n.stratum):
		return &gap{kind: fault.Invalid, field: "stratum", says: "stratum " + at + " is too shallow: " + n.why + " at stratum " + n.stratum, remedy: "leave the stratum out, or ask for " + n.stratum}
	case n.deepest != "" && depthOf(at) > depthOf(n.deepest):
		return &gap{kind: fault.Invalid, says: "stratum " + at + " is too deep: " + n.deepest + " is the deepest that serves it", remedy: "leave the stratum or the need out", field: "needs"}
	case n.kvm && at != stratum.Zone && !h.KVM:
		says := "stratum " + at + " takes KVM for it, which this host has not"
		if h.NoKVM != "" {
			says += " (" + h.NoKVM + ")"
		}
		return &gap{kind: fault.Unable, field: "needs", says: says, remedy: "turn on virtualization in the host's firmware, or leave the need out"}
	}
	for _, b := range bars {
		if b.need == n.name && b.given(spec) {
			return &gap{kind: fault.Invalid, field: b.field, says: b.why, remedy: "leave the need or " + b.option + " out"}
		}
	}
	return nil
}

func (g *gap) refusal(w api.Wanted, at string) error {
	return fault.New(g.kind, "the need %s%s is not served: %s", w.Need, owner(w), g.says).At(g.field).Help("%s; --stratum %s --force takes it all the same", g.remedy, at)
}

// owner says whose need it is, where it is not the user's.
func owner(w api.Wanted) string {
	switch w.From {
	case "asked":
		return ""
	case "template":
		return " of the template"
	}
	return " of the option " + w.From
}

// others says what every other stratum would have meant.
func others(c api.Choice, h Host, prices map[string]string) []api.Depth {
	all := []api.Depth{}
	for _, d := range depth {
		if d == c.Stratum {
			continue
		}
		o := api.Depth{Stratum: d, Deeper: depthOf(d) > depthOf(c.Stratum), Served: slices.Contains(h.Strata, d) && h.Lacks[d] == nil, Price: price(prices, d)}
		if o.Deeper {
			o.Adds = strings.Join(between(c.Stratum, d), ", ")
		} else if o.Lacks = strings.Join(missed(c, d), ", "); o.Lacks == "" {
			o.Lacks = "nothing that is needed; it would have " + strings.Join(between(d, c.Stratum), ", ") + " less"
		}
		all = append(all, o)
	}
	return all
}

// between lists the needs that the deeper of two strata serves and the other does not.
func between(shallow, deep string) []string {
	var names []string
	for _, n := range needs {
		if !n.later && depthOf(n.stratum) > depthOf(shallow) && depthOf(n.stratum) <= depthOf(deep) {
			names = append(names, n.name)
		}
	}
	return names
}

// missed lists the needs of c that a shallower stratum does not serve.
func missed(c api.Choice, at string) []string {
	var names []string
	for _, w := range c.Needs {
		if depthOf(w.Stratum) > depthOf(at) {
			names = append(names, w.Need)
		}
	}
	return names
}

func list(all []api.Wanted) string {
	var names []string
	for _, w := range all {
		names = append(names, w.Need)
	}
	return strings.Join(names, ", ")
}

func price(prices map[string]string, at string) string {
	if p := prices[at]; p != "" {
		return p
	}
	return NotMeasured
}
