package virtual

import (
	"testing"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/stratum"
)

func TestTheMainProgramsFilterIsNamedWhereTheAgentHasIt(t *testing.T) {
	const filter, another = "a filter", "another daemon's"
	for sentence, c := range map[string]struct {
		plan stratum.Plan
		told string
		want string
	}{
		"the same":                            {stratum.Plan{}, filter, wire.MainFilter},
		"another daemon's":                    {stratum.Plan{}, another, filter},
		"nothing was started":                 {stratum.Plan{Idle: true}, filter, filter},
		"it goes on, and was told by another": {stratum.Plan{Saved: "/saved"}, filter, filter},
		"an init has none":                    {stratum.Plan{System: true}, filter, filter},
	} {
		n := notesOf(c.plan)
		n.told(c.plan, []byte(c.told))
		if got := n.further([]byte(filter)); string(got) != c.want {
			t.Errorf("%s: %q, want %q", sentence, got, c.want)
		}
	}
	if got := (&Notes{}).further(nil); got != nil {
		t.Errorf("no filter became %q", got)
	}
}
