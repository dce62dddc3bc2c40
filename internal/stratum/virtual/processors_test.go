package virtual

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// boardOf has a processor for each x, in the order of QEMU's cores.
func boardOf(text string) (b board) {
	for i, c := range text {
		s := socket{Type: "qemu64-x86_64-cpu", Props: position{Core: int64(i)}}
		if c == 'x' {
			s.Path = "/machine/" + string(rune('a'+i))
		}
		b = append(b, s)
	}
	return b
}

func cores(b board) (all []int64) {
	for _, s := range b {
		all = append(all, s.Props.Core)
	}
	return all
}

func TestProcessorsComeAndGoInTheOrderOfTheirNumbers(t *testing.T) {
	for sentence, c := range map[string]struct {
		board             string
		n                 int
		missing, surplus  []int64
		count             int
		canBeMadeAgainByN bool
	}{
		"two more":                          {"x---", 3, []int64{1, 2}, nil, 1, true},
		"as many as there are":              {"xx--", 2, nil, nil, 2, true},
		"all sockets":                       {"x-", 2, []int64{1}, nil, 1, true},
		"more than sockets":                 {"x-", 5, []int64{1}, nil, 1, true},
		"the last goes first":               {"xxx-", 1, nil, []int64{2, 1}, 3, true},
		"the first stays":                   {"xx", 0, nil, []int64{1}, 2, true},
		"a hole is filled first":            {"x-x-", 4, []int64{1, 3}, nil, 2, false},
		"what is beyond a hole goes first":  {"x-xx", 2, nil, []int64{3}, 3, false},
		"what is beyond a hole is counted":  {"x--x", 2, nil, nil, 2, false},
		"a board without room for another":  {"x", 1, nil, nil, 1, true},
		"nothing is plugged in to go lower": {"xxxx", 3, nil, []int64{3}, 4, true},
	} {
		b := boardOf(c.board)
		if got := cores(b.missing(c.n)); !reflect.DeepEqual(got, c.missing) {
			t.Errorf("%s: %v are plugged in; want %v", sentence, got, c.missing)
		}
		if got := cores(b.surplus(c.n)); !reflect.DeepEqual(got, c.surplus) {
			t.Errorf("%s: %v are taken out; want %v", sentence, got, c.surplus)
		}
		if b.count() != c.count || b.row() != c.canBeMadeAgainByN {
			t.Errorf("%s: %d in a row: %v", sentence, b.count(), b.row())
		}
	}
}

func TestAProcessorIsPluggedInWhereQEMUSays(t *testing.T) {
	var b board
	// As QEMU 7.2 writes it.
	const said = `[{"props": {"core-id": 1, "thread-id": 0, "socket-id": 0}, "vcpus-count": 1, "type": "host-x86_64-cpu"},
	 {"props": {"core-id": 0, "thread-id": 0, "socket-id": 0}, "vcpus-count": 1, "qom-path": "/machine/unattached/device[0]", "type": "host-x86_64-cpu"}]`
	if err := json.Unmarshal([]byte(said), &b); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"driver": "host-x86_64-cpu", "id": "processor1", "socket-id": 0.0, "core-id": 1.0, "thread-id": 0.0}
	text, err := json.Marshal(b.missing(2)[0].device())
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("device_add gets %s; want %v", text, want)
	}
}

func TestHowManyProcessorsALimitMeans(t *testing.T) {
	for sentence, c := range map[string]struct {
		r          api.Resources
		have, want int
	}{
		"a part of one is one":                 {api.Resources{CPUs: 500}, 1, 1},
		"a part more is one more":              {api.Resources{CPUs: 1001}, 1, 2},
		"a lower limit takes some out":         {api.Resources{CPUs: 1000}, 4, 1},
		"a guarantee beyond the limit":         {api.Resources{CPUs: 1000, CPUGuarantee: 1500}, 1, 2},
		"no limit keeps what is there":         {api.Resources{}, 3, 3},
		"no limit, and a guarantee is reached": {api.Resources{CPUGuarantee: 2500}, 1, 3},
	} {
		if got, err := target(c.r, c.have); got != c.want || err != nil {
			t.Errorf("%s: %d, %v; want %d", sentence, got, err, c.want)
		}
	}
	if _, err := target(api.Resources{CPUs: 1000 * unit.CPUs(maxProcessors+1)}, 1); !fault.Is(err, fault.Invalid) {
		t.Errorf("more than any board has: %v", err)
	}
}

func TestWhenAnEmulatedProcessorCanBegin(t *testing.T) {
	// As QEMU 7.2 writes it, with -accel tcg,tb-size=64.
	said := "Translation buffer state:\ngen code size       7478099/67026944\nTB count            21647\n"
	got, err := readTranslations(said)
	if err != nil || got != (translations{7478099, 67026944}) {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "gen code size 12", "gen code size 1/0", "gen code size 99999999999999999999/1"} {
		if _, err := readTranslations(text); !fault.Is(err, fault.Unable) {
			t.Errorf("%q: %v", text, err)
		}
	}
	const whole = 64 << 20
	for sentence, c := range map[string]struct {
		taken                   int64
		sockets, begun, further int
		want                    bool
	}{
		"nothing is taken":                          {0, 10, 1, 1, true},
		"two parts of 32 are left, for two":         {60 << 20, 10, 1, 1, true},
		"less than two parts are left":              {60<<20 + 1, 10, 1, 1, false},
		"with fewer sockets the parts are larger":   {60 << 20, 2, 1, 1, false},
		"two further ones":                          {60 << 20, 10, 1, 2, false},
		"all that have begun may hold a part":       {52 << 20, 10, 5, 1, true},
		"all that have begun, and a byte":           {52<<20 + 1, 10, 5, 1, false},
		"as many parts as sockets, where few fit":   {0, 64, 1, 1, true},
		"everything is taken":                       {whole, 10, 1, 1, false},
		"more than there are parts, at the end":     {0, 64, 40, 25, false},
		"a part for each, all of which have begun ": {0, 64, 63, 1, true},
	} {
		if got := (translations{c.taken, whole}).fits(c.sockets, c.begun, c.further); got != c.want {
			t.Errorf("%s: %v", sentence, got)
		}
	}
}

func TestMoreProcessorsThanThereIsRoomForAreRefused(t *testing.T) {
	for sentence, c := range map[string]struct {
		stratum       string
		has, most     int
		r             api.Resources
		field, hinted string // "": it is let pass
	}{
		"within the board's room":           {"machine", 1, 4, api.Resources{CPUs: 4000}, "", ""},
		"beyond it":                         {"machine", 1, 4, api.Resources{CPUs: 4001}, "resources.cpus", "stop it first"},
		"a guarantee beyond it":             {"machine", 1, 4, api.Resources{CPUGuarantee: 5000}, "resources.cpu_guarantee", "stop it first"},
		"a board that takes none":           {"machine", 2, 0, api.Resources{CPUs: 3000}, "resources.cpus", "stop it first"},
		"what a guest has":                  {"guest", 2, 0, api.Resources{CPUs: 1500}, "", ""},
		"more than a guest has":             {"guest", 2, 0, api.Resources{CPUs: 2500}, "resources.cpus", "strata move NAME machine"},
		"more, and no limit is asked for":   {"guest", 2, 0, api.Resources{}, "", ""},
		"more than it had when it was made": {"machine", 4, 2, api.Resources{CPUs: 4000}, "", ""},
	} {
		l := &Live{d: &Driver{o: Options{Stratum: c.stratum}}, notes: Notes{Boot: api.Boot{CPUs: c.has, MostCPUs: c.most}}}
		err := l.Room(c.r)
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", sentence, err)
			}
			continue
		}
		all := fault.All(err)
		if len(all) != 1 || all[0].Kind != fault.Conflict || all[0].Field != c.field || !strings.Contains(all[0].Hint, c.hinted) {
			t.Errorf("%s: %+v", sentence, err)
		}
	}
}
