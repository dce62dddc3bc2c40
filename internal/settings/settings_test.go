package settings

import (
	"reflect"
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

// example is a value of each kind.
func example(s Setting) string {
	switch s.Value {
	case aSize:
		return "1.5M"
	case aShare:
		return "300"
	case aPage:
		return "2M"
	case aList:
		return "0,2-3"
	case aPolicy:
		return "idle"
	}
	return "2"
}

func TestEveryFieldIsInTheTableAndComesThroughAChange(t *testing.T) {
	var all api.Resources
	seen := map[string]bool{}
	for _, s := range All {
		var u api.Update
		if err := s.Change(example(s), &u); err != nil {
			t.Fatal(err)
		}
		one := Apply(api.Resources{}, u)
		if err := s.Read(example(s), &all); err != nil {
			t.Fatal(err)
		}
		if got := s.Text(one); got != example(s) {
			t.Errorf("%s reads back as %q, want %q", s.Flag, got, example(s))
		}
		if !s.Differs(api.Resources{}, one) || s.Differs(all, Apply(all, u)) {
			t.Errorf("Differs of %s is wrong", s.Flag)
		}
		field, ok := reflect.TypeFor[api.Resources](), false
		for i := range field.NumField() {
			name, _, _ := strings.Cut(field.Field(i).Tag.Get("json"), ",")
			ok = ok || name == s.Field() && !reflect.ValueOf(one).Field(i).IsZero()
		}
		if !ok {
			t.Errorf("%s is not what %s is called on the wire", s.Field(), s.Flag)
		}
		if found, ok := Find(s.Key()); !ok || found.Flag != s.Flag || seen[s.Key()] {
			t.Errorf("Find(%q) = %v", s.Key(), found.Flag)
		}
		seen[s.Key()] = true
	}
	v := reflect.ValueOf(all)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s has no row", v.Type().Field(i).Name)
		}
	}
}

func TestWhatIsNoValueIsRefused(t *testing.T) {
	for flag, text := range map[string]string{"memory": "much", "cpus": "0.0001", "cpu-guarantee": "-1", "cpu-weight": "1.5", "pids": "-3", "swap": "none", "reclaim": "often", "cpuset-cpus": "3-1"} {
		for _, s := range All {
			if s.Flag == flag && !fault.Is(s.Read(text, &api.Resources{}), fault.Invalid) {
				t.Errorf("%s takes %q", flag, text)
			}
		}
	}
}

func TestNoSwapAndNoSwapLimitAreTwoThings(t *testing.T) {
	s, _ := Find("swap")
	var r api.Resources
	if err := s.Read("0", &r); err != nil || s.Text(r) != "0" || s.Text(api.Resources{}) != "" {
		t.Errorf("swap=0 is %q, %v", s.Text(r), err)
	}
}

func TestAStratumRefusesWhatItHasNotByName(t *testing.T) {
	var r api.Resources
	s, _ := Find("swap")
	if err := s.Read("1G", &r); err != nil {
		t.Fatal(err)
	}
	if err := Refused(r, "zone"); err != nil {
		t.Error(err)
	}
	for _, at := range []string{"guest", "machine"} {
		all := fault.All(Refused(r, at))
		if len(all) != 1 || all[0].Kind != fault.Unable || all[0].Field != "resources.swap" {
			t.Errorf("at %s: %v", at, all)
		}
	}
}

func TestWhatWaitsForTheNextStartIsRefusedByName(t *testing.T) {
	all := fault.All(Waiting(api.Resources{Memory: 1}, api.Resources{HugePages: 2 << 20}, "guest"))
	if len(all) != 1 || all[0].Kind != fault.Conflict || all[0].Field != "resources.hugepages" {
		t.Error(all)
	}
}

func TestOnlyWhatHoldsAtOnceIsAChangeOfARun(t *testing.T) {
	if Changed(api.Resources{}, api.Resources{Disk: 1}, "machine") || !Changed(api.Resources{}, api.Resources{CPUWeight: 1}, "guest") {
		t.Error("Changed is wrong")
	}
}
