package machine

import (
	"slices"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

func TestHowManyProcessorsABoardHasRoomFor(t *testing.T) {
	for sentence, c := range map[string]struct {
		board             machine.Platform
		count, host, want int
	}{
		"as many as the host has":             {machine.Q35, 1, 4, 4},
		"those that it is built with":         {machine.Q35, 8, 4, 8},
		"not for all of a large host":         {machine.Q35, 2, 200, 16},
		"but for those that it is built with": {machine.Q35, 100, 200, 100},
		"a pc has them from its start":        {machine.PC, 1, 4, 0},
	} {
		if got := room(c.board, c.count, c.host); got != c.want {
			t.Errorf("%s: %d; want %d", sentence, got, c.want)
		}
	}
}

// A suspended machine goes on in one of the same form, whose processors are compared apart.
func TestTheFormOfAMachineIsThatOfItsBoard(t *testing.T) {
	form := func(count, most int) []string {
		s, err := hardware(stratum.Plan{Name: "box"}, qemu.TCG)
		if err != nil {
			t.Fatal(err)
		}
		s.Processors = machine.Processors{Count: count, Most: most}
		l := &launch{Launch: &virtual.Launch{}, spec: s}
		args := l.Form()
		if l.spec.Processors.Count != count {
			t.Errorf("its form leaves the machine %d processors; want %d", l.spec.Processors.Count, count)
		}
		return args
	}
	if !slices.Equal(form(1, 4), form(3, 4)) {
		t.Error("processors that come and go make it another machine")
	}
	if slices.Equal(form(1, 4), form(1, 8)) {
		t.Error("room for more processors does not make it another machine")
	}
	// As systems have it that were suspended when boards had no room.
	old := form(2, 0)
	if slices.Equal(form(1, 0), old) || !strings.Contains(strings.Join(old, " "), "cpus=2,maxcpus=2,") {
		t.Errorf("without room its processors are its form: %q", old)
	}
}
