package qemu

import (
	"slices"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

func TestTheShapeOfAMachineDoesNotDependOnWhatIsBehindIt(t *testing.T) {
	devices := func(g Guest) (all string) {
		args := g.Args()
		for i, a := range args {
			if a == "-device" {
				name, _, _ := strings.Cut(args[i+1], ",")
				all += name + "\n"
			}
		}
		return all
	}
	saved := Guest{Name: "a", Accelerator: TCG, Memory: unit.GiB, Processors: 1, Kernel: "/k", Initrd: "/i", Backing: Backing{File: "/m", Shared: true}}
	clone := Guest{Name: "b", Accelerator: TCG, Memory: unit.GiB, Processors: 1, Tap: 9, MAC: "02:00:00:00:00:01", Incoming: true, Backing: Backing{File: "/m"}}
	if a, b := devices(saved), devices(clone); a != b {
		t.Errorf("a machine that is saved has\n%sand one that goes on has\n%s", a, b)
	}
	plain := saved
	plain.Backing = Backing{}
	if a, b := devices(saved), strings.Replace(devices(plain), "virtio-balloon-device\n", "", 1); a != b {
		t.Errorf("a machine that is saved has\n%sand one that boots has, but for the balloon,\n%s", a, b)
	}
}

func TestNoValueCanAddAProperty(t *testing.T) {
	g := Guest{Name: "a", Accelerator: TCG, Memory: unit.GiB, Processors: 1, Backing: Backing{File: "/m,share=on"}}
	if all := strings.Join(g.Args(), " "); !strings.Contains(all, "mem-path=/m,,share=on") {
		t.Errorf("a comma in a path is not escaped: %s", all)
	}
}

func TestProcessorsTakeTurnsWhereOneGoesOnWithOldCode(t *testing.T) {
	for version, want := range map[string]bool{"6.2.0": true, "7.2.22": true, "8.0.5": true, "8.1.0": false, "10.0.2": false} {
		p, err := parseVersion("/usr/bin/qemu", "QEMU emulator version "+version)
		if err != nil || p.Turns != want {
			t.Errorf("QEMU %s: %v, %v", version, p.Turns, err)
		}
	}
}

func TestTheCacheOfTranslations(t *testing.T) {
	saved := Backing{File: "memory"}
	for want, g := range map[string]Guest{
		"tb-size=32":  {Backing: saved},
		"tb-size=64":  {Backing: saved, Rehearsed: true},
		"tb-size=96":  {}, // it boots: with less it would throw everything away on the way
		"tb-size=128": {Backing: saved, Memory: 8 * unit.GiB},
	} {
		if g.Accelerator = TCG; g.Memory == 0 {
			g.Memory = 512 * unit.MiB
		}
		if args := g.Args(); !slices.Contains(args, "tcg,"+want) {
			t.Errorf("%+v: not %s but %q", g, want, args)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for said, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)\nCopyright": "7.2.22",
		"QEMU emulator version 10.1.0":                                              "10.1.0",
		"QEMU emulator version 6.2.0":                                               "6.2.0",
		"QEMU emulator version 6.1.0":                                               "",
		"qemu: something else":                                                      "",
		"":                                                                          "",
		"QEMU emulator version 99999999":                                            "",
	} {
		p, err := parseVersion("/usr/bin/qemu", said)
		if p.Version != want && want != "" || (err == nil) != (want != "") {
			t.Errorf("%q: %+v, %v", said, p, err)
		}
		if err != nil && !fault.Is(err, fault.Unable) {
			t.Errorf("%q: %v", said, err)
		}
	}
}
