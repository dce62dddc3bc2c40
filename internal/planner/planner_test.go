package planner_test

import (
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/planner"
)

func TestChoose(t *testing.T) {
	for name, c := range map[string]struct {
		asked    string
		needs    []string
		want     string
		kind     fault.Kind
		says     string
		everyone bool // all three strata have a driver
	}{
		"nothing asked for is a zone":                        {want: "zone", says: "shallowest"},
		"needs that a zone serves":                           {needs: []string{"isolation", "own-init"}, want: "zone", says: "own-init"},
		"a zone by name":                                     {asked: "zone", want: "zone", says: "by name"},
		"a need that nothing here serves is refused by name": {needs: []string{"isolation", "own-kernel"}, kind: fault.Unable, says: "own-kernel"},
		"a stratum that nothing here serves":                 {asked: "guest", kind: fault.Unable, says: "guest"},
		"an unknown need":                                    {needs: []string{"speed"}, kind: fault.Invalid, says: "speed"},
		"an unknown stratum":                                 {asked: "cellar", kind: fault.Invalid, says: "cellar"},
		"a stratum too shallow for a need":                   {asked: "zone", needs: []string{"kernel-modules"}, kind: fault.Invalid, says: "kernel-modules"},
		"the deepest need decides":                           {needs: []string{"own-kernel", "foreign-os"}, want: "machine", says: "foreign-os", everyone: true},
		"deeper than needed, by name":                        {asked: "machine", needs: []string{"isolation"}, want: "machine", says: "by name", everyone: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := planner.Request{Stratum: c.asked, Needs: c.needs, Available: []string{"zone"}}
			if c.everyone {
				r.Available = []string{"zone", "guest", "machine"}
			}
			got, err := planner.Choose(r)
			said := got.Reason
			if c.want == "" {
				if !fault.Is(err, c.kind) {
					t.Fatalf("got %+v, %v; want kind %s", got, err, c.kind)
				}
				said = err.Error()
			} else if err != nil || got.Stratum != c.want {
				t.Fatalf("got %+v, %v; want %s", got, err, c.want)
			}
			if !strings.Contains(said, c.says) {
				t.Errorf("%q does not say %q", said, c.says)
			}
		})
	}
}
