package machine

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/unit"
)

var update = flag.Bool("update", false, "write testdata anew")

// made is a machine by default, with a disk, a CD and a card.
func made(t testing.TB, os OS, h Host) Spec {
	t.Helper()
	s, err := Defaults(os, "", h)
	if err != nil {
		t.Fatal(err)
	}
	s.Name = "box"
	s.Drives = []Drive{{ID: "disk0", Medium: Disk, Serial: "strata-disk"}, {ID: "cd0", Medium: CD}}
	s.Cards = []Card{{ID: "card0", MAC: "52:54:00:00:00:01"}}
	if os == DOS {
		s.Drives = append(s.Drives, Drive{ID: "floppy0", Medium: Floppy})
	}
	return s
}

// numbered are files for all that s has.
func numbered(s Spec) Files {
	f := Files{
		Ring: true, Control: 5, Streams: 6, Monitor: 7, Events: 8, Guest: 14, Console: 9, Taps: map[string]int{"card0": 10},
		Now: time.Date(2026, 11, 21, 9, 5, 10, 0, time.UTC), Drives: map[string][]argv.Image{},
	}
	if s.TPM {
		f.TPM = 11
	}
	if s.uefi() {
		f.Code, f.Vars = argv.Image{Format: "raw", FD: 12}, argv.Image{Format: "raw", FD: 13}
	}
	for i, d := range s.Drives {
		if d.Medium != CD {
			f.Drives[d.ID] = []argv.Image{{Format: "raw", FD: 20 + i}}
		}
	}
	return f
}

// everything is a machine with all that a board has.
func everything(t testing.TB, p Platform) (Spec, Files) {
	s, err := Defaults(Linux, p, Host{Accel: qemu.TCG})
	if err != nil {
		t.Fatal(err)
	}
	s.Name = "box"
	s.Processors, s.Memory = Processors{2, 4}, Memory{512 * unit.MiB, 2 * unit.GiB, 4}
	s.UUID, s.TPM, s.Panic, s.Keyboard, s.Screen = "5d3c1f5e-7f0a-4d0b-9a52-0c8f6d1f2b11", true, true, USB, VirtioVGA
	s.Channels, s.CPU = VirtioChannels, CPU{Model: "max", Nested: true}
	drive := func(m Medium, b Bus, n int) {
		for range n {
			i := 0
			for _, d := range s.Drives {
				if d.Medium == m {
					i++
				}
			}
			s.Drives = append(s.Drives, Drive{ID: fmt.Sprintf("%s%d", m, i), Medium: m, Bus: b})
		}
	}
	drive(Disk, AHCI, 4)
	drive(CD, AHCI, 2)
	drive(Disk, VirtioBlk, 3)
	drive(Disk, VirtioSCSI, 2)
	drive(CD, VirtioSCSI, 1)
	drive(Floppy, "", 2)
	models := []CardModel{E1000, RTL8139, VirtioNet}
	if p == PC {
		drive(Disk, IDE, 3)
		drive(CD, IDE, 1)
	} else {
		drive(Disk, NVMe, 2)
		models = append(models, E1000E, VirtioNet, E1000E)
	}
	for i, m := range models {
		s.Cards = append(s.Cards, Card{ID: fmt.Sprintf("card%d", i), Model: m})
	}
	s.Boot, s.Once = []string{"floppy1", "disk4", "card1", "disk0"}, "cd0"
	return s, numbered(s)
}

func TestArgs(t *testing.T) {
	type pair struct {
		s Spec
		f Files
	}
	all := map[string]pair{}
	for _, os := range Systems() {
		s := made(t, os, Host{Accel: qemu.TCG})
		all[string(os)] = pair{s, numbered(s)}
	}
	for _, p := range []Platform{Q35, PC} {
		s, f := everything(t, p)
		all["everything-"+string(p)] = pair{s, f}
	}
	s := made(t, Windows, Host{Accel: qemu.KVM, TPM: true})
	s.Firmware, s.Screen = UEFISecure, VirtioVGA
	all["windows-kvm-secure"] = pair{s, numbered(s)}
	s = made(t, Linux, Host{Accel: qemu.KVM})
	s.Channels = SerialChannels
	f := numbered(s)
	f.Ring, f.StartStopped, f.Incoming, f.Volumes, f.Taps = false, true, true, []qemu.Volume{{Tag: "a,b", FD: 14}}, nil
	f.Drives["disk0"] = []argv.Image{{Format: "qcow2", FD: 20}, {Format: "vmdk", FD: 21}}
	f.Drives["cd0"] = []argv.Image{{Format: "raw", FD: 22, Offset: 512, Size: 1 << 20}}
	all["linux-kvm-serial-overlay"] = pair{s, f}
	for name, p := range all {
		t.Run(name, func(t *testing.T) {
			if err := p.s.Validate(); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".args", onLines(p.s.Args(p.f)))
			var rows strings.Builder
			for _, r := range p.s.Describe() {
				fmt.Fprintf(&rows, "%-14s %-36s %s\n", r.Part, r.Model, r.Why)
			}
			golden(t, name+".plan", rows.String())
		})
	}
}

// onLines has an option and its value on a line.
func onLines(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteString(map[bool]string{true: "\n", false: " "}[strings.HasPrefix(a, "-")])
		}
		b.WriteString(a)
	}
	return b.String() + "\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("run the test with -update where this is meant (-want +got):\n%s", d)
	}
}
