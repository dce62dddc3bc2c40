package planner

import (
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/near"
	"github.com/strata-project/strata/internal/stratum"
)

// depth orders the strata, shallowest first.
var depth = []string{stratum.Zone, stratum.Guest, stratum.Machine}

func depthOf(name string) int { return slices.Index(depth, name) }

// need is one row of the vocabulary.
type need struct {
	name    string
	means   string // in the user's words: "I want …"
	stratum string // the shallowest that serves it
	deepest string // the deepest that still serves it; "": any
	kvm     bool   // below zones it also takes a KVM that really runs guests
	why     string // what the stratum has that serves it
	source  string // what this is known from
	later   bool   // a word of the vocabulary that no stratum of this version serves
	without string // what an environment with it cannot have, in words; see bars
}

// Sources of rows. They are documents of the project.
const (
	fromContract = "docs/contract.md"
	fromThreats  = "docs/threat-model.md"
	fromGuests   = "docs/guests.md"
	fromMachines = "docs/machines.md"
	fromDesign   = "docs/architecture.md"
)

// needs is the whole vocabulary. docs/reference/needs.md, `strata needs` and the
// choice itself are made from it.
var needs = []need{
	{name: "isolation", means: "its files, processes, users and network are kept apart from others", stratum: stratum.Zone,
		why: "namespaces and a user range of its own keep it apart", source: fromThreats},
	{name: "limits", means: "it can take no more memory, processor, disk or processes than I say", stratum: stratum.Zone,
		why: "every depth keeps limits", source: fromContract},
	{name: "own-address", means: "it has a name, an address and ports of its own", stratum: stratum.Zone,
		why: "every depth has a network card of its own", source: fromContract},
	{name: "host-files", means: "it works on folders of this host, with the same owners", stratum: stratum.Zone,
		why: "volumes show the host's own files", source: fromContract},
	{name: "density", means: "as many as possible run on this host", stratum: stratum.Zone, deepest: stratum.Guest,
		why: "it shares the host's kernel and page cache", source: fromGuests},
	{name: "fast-start", means: "it starts in a fraction of a second", stratum: stratum.Zone, deepest: stratum.Guest,
		why: "nothing is booted", source: fromGuests},
	{name: "native-speed", means: "its programs compute as fast as the host's own", stratum: stratum.Zone, kvm: true,
		why: "its programs run on the host's processors as any other", source: fromGuests},
	{name: "own-init", means: "a whole system runs, with systemd or another init", stratum: stratum.Zone,
		why: "the template's init can be process 1 of a zone", source: fromContract},
	{name: "untrusted-code", means: "it runs code that may attack the kernel", stratum: stratum.Guest,
		why: "code that may attack the kernel must not share the host's", source: fromThreats},
	{name: "own-kernel", means: "it runs a kernel that I choose, or one that may crash alone", stratum: stratum.Guest,
		why: "it runs a kernel of its own", source: fromGuests},
	{name: "kernel-modules", means: "it depends on modules that this host's kernel must not load", stratum: stratum.Guest,
		why: "a system's root loads what its template carries into a kernel of its own", source: fromGuests},
	{name: "checkpoint", means: "its whole running state is written down and gone on from", stratum: stratum.Guest,
		why: "its memory and devices can be written down", source: fromGuests, without: "no volumes, and none with --rm"},
	{name: "live-migration", means: "it moves to another host while it runs", stratum: stratum.Guest, later: true,
		why: "its whole state can be moved while it runs", source: fromDesign},
	{name: "foreign-os", means: "it is no Linux, or must not know that it is virtual", stratum: stratum.Machine,
		why: "it boots under stock firmware, as on hardware", source: fromMachines},
	{name: "stock-hardware", means: "it wants hardware as a shop sells it", stratum: stratum.Machine,
		why: "disk, network card and screen are ones that every system knows", source: fromMachines},
	{name: "own-firmware", means: "it is booted by a BIOS or UEFI", stratum: stratum.Machine,
		why: "firmware runs before it", source: fromMachines},
	{name: "graphical-console", means: "it wants a screen and a keyboard", stratum: stratum.Machine,
		why: "it has a screen", source: fromMachines},
}

// Known returns the names of the vocabulary, in its order.
func Known() []string {
	var names []string
	for _, n := range needs {
		names = append(names, n.name)
	}
	return names
}

// Vocabulary returns the whole table, for people and programs.
func Vocabulary() []api.Need {
	var all []api.Need
	for _, n := range needs {
		row := api.Need{Name: n.name, Means: n.means, Stratum: n.stratum, Deepest: n.deepest, Why: n.why, Source: n.source, Later: n.later}
		if n.kvm {
			row.Takes = "KVM, at strata deeper than zone"
		}
		row.Without = n.without
		all = append(all, row)
	}
	return all
}

// bars are options that take away what serves a need, at every stratum.
var bars = []struct {
	need, field, option string
	given               func(api.Spec) bool
	why                 string
}{
	{"checkpoint", "volumes", "volumes", func(s api.Spec) bool { return len(s.Volumes) > 0 }, "a system with volumes cannot be written down, since QEMU saves no virtiofs"},
	{"checkpoint", "auto_remove", "--rm", func(s api.Spec) bool { return s.AutoRemove }, "its run ends when it is written down, and --rm removes it then"},
	{"checkpoint", "foreign", "the foreign system", func(s api.Spec) bool { return s.Foreign != nil }, "a foreign system cannot be written down"},
}

// named returns the row of a need, nil where there is none.
func named(name string) *need {
	i := slices.IndexFunc(needs, func(n need) bool { return n.name == name })
	if i < 0 {
		return nil
	}
	return &needs[i]
}

// nearest returns the names that name may have been meant for, best first: at
// most three, and none that is far off. name is somebody's text of any length.
func nearest(name string) []string {
	const far = 64 // no name is longer, and the time that a comparison takes stays bounded
	if len(name) > far {
		return nil
	}
	type scored struct {
		name string
		off  int
	}
	var found []scored
	for _, n := range needs {
		off := near.Distance(name, n.name)
		if len(name) > 2 && (strings.Contains(n.name, name) || strings.Contains(name, n.name)) {
			off = 1
		}
		if off <= max(2, len(n.name)/3) {
			found = append(found, scored{n.name, off})
		}
	}
	slices.SortStableFunc(found, func(a, b scored) int { return a.off - b.off })
	var names []string
	for _, s := range found[:min(3, len(found))] {
		names = append(names, s.name)
	}
	return names
}
