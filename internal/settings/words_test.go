package settings

import (
	"testing"

	"github.com/strata-project/strata/api"
)

func TestAWordForNothingIsNotKept(t *testing.T) {
	for key, c := range map[string]struct{ set, clear string }{"reclaim": {"idle", "off"}, "cpuset-cpus": {"0-1", "all"}} {
		s, _ := Find(key)
		var r api.Resources
		for _, text := range []string{c.set, c.clear} {
			var u api.Update
			if err := s.Change(text, &u); err != nil {
				t.Fatal(err)
			}
			r = Apply(r, u)
			if want := map[bool]string{true: c.set}[text == c.set]; s.Text(r) != want {
				t.Errorf("%s=%s is kept as %q", key, text, s.Text(r))
			}
		}
	}
}
