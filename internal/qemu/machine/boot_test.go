package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/disk/image"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

func TestEachSystemsMachineBootsItsDisk(t *testing.T) { bootsItsDisk(t, qemu.TCG) }

func bootsItsDisk(t *testing.T, accelerator string) {
	for _, system := range Systems() {
		for _, p := range []Platform{Q35, PC} {
			t.Run(string(system)+" on "+string(p), func(t *testing.T) {
				s, err := Defaults(system, p, Host{Accel: accelerator})
				if err != nil {
					t.Fatal(err)
				}
				s.Name = "box"
				s.Drives = []Drive{{ID: "cd0", Medium: CD}, {ID: "disk0", Medium: Disk}}
				s.Cards = []Card{{ID: "card0", MAC: "52:54:00:00:00:01"}}
				s.Firmware = BIOS // the disk has no UEFI program
				s.Memory.Size = min(s.Memory.Size, 512*unit.MiB)
				if err := s.Validate(); err != nil {
					t.Fatal(err)
				}
				r := start(t, s, options{})
				r.hears("b")
				if accelerator == qemu.TCG || system != DOS { // its old processor may have what the host's has not, which is said
					r.quiet()
				}
			})
		}
	}
}

func TestQEMUTakesWhatValidateTakes(t *testing.T) {
	with := func(os OS, change func(*Spec)) Spec {
		s := made(t, os, Host{Accel: qemu.TCG})
		change(&s)
		return s
	}
	q35, _ := everything(t, Q35)
	pc, _ := everything(t, PC)
	_, noTPM := FindTPM(t.Context())
	q35.TPM, pc.TPM = noTPM == nil, noTPM == nil
	bus := func(n int, m Medium, b Bus) (all []Drive) {
		for i := range n {
			all = append(all, Drive{ID: fmt.Sprint(m, i), Medium: m, Bus: b, ReadOnly: m == Disk && b == VirtioSCSI})
		}
		return all
	}
	all := map[string]Spec{
		"all there is on a q35": q35,
		"all there is on a pc":  pc,
		"the most processors":   with(Linux, func(s *Spec) { s.Processors = Processors{1, MaxProcessors} }),
		"the most memory":       with(Linux, func(s *Spec) { s.Memory = Memory{unit.GiB, MaxMemory, MaxSlots} }),
		"the most memory of a pc": with(DOS, func(s *Spec) {
			s.Memory, s.CPU.Model = Memory{unit.GiB, MaxMemory, 1}, "qemu64"
		}),
		"the most drives on virtio-blk": with(Linux, func(s *Spec) { s.Drives = bus(16, Disk, VirtioBlk) }),
		"the most drives on NVMe":       with(Linux, func(s *Spec) { s.Drives = bus(16, Disk, NVMe) }),
		"the most drives on SCSI":       with(Linux, func(s *Spec) { s.Drives = bus(64, Disk, VirtioSCSI) }),
		"the most drives on a pc":       with(DOS, func(s *Spec) { s.Drives = append(bus(8, Disk, VirtioBlk), bus(6, CD, AHCI)...) }),
		"the most places":               with(Linux, func(s *Spec) { s.Spare = maxSpare }),
		"serial channels": with(Linux, func(s *Spec) {
			s.Channels, s.Screen = SerialChannels, NoScreen
		}),
		"a named processor": with(BSD, func(s *Spec) { s.CPU.Model = "Nehalem-v1" }),
		"Windows as it is sold": with(Windows, func(s *Spec) {
			s.Firmware, s.TPM = UEFISecure, noTPM == nil
		}),
	}
	for _, os := range Systems() { // as they are, on their usual board
		all["what is usual for "+string(os)] = made(t, os, Host{Accel: qemu.TCG, TPM: noTPM == nil})
	}
	for sentence, s := range all {
		t.Run(sentence, func(t *testing.T) {
			if err := s.Validate(); err != nil {
				t.Fatal(err)
			}
			r := start(t, s, options{stopped: true})
			var status struct{ Status string }
			r.execute("query-status", nil, &status)
			if status.Status != "prelaunch" {
				t.Errorf("it is %s", status.Status)
			}
			if s.CPU.Model != "Nehalem-v1" { // TCG says which of its features are missing
				r.quiet()
			}
		})
	}
}

func TestTheFirmwareComesUpInTheLeastMemory(t *testing.T) {
	for _, p := range []Platform{Q35, PC} {
		s, err := Defaults(Other, p, Host{Accel: qemu.TCG})
		if err != nil {
			t.Fatal(err)
		}
		s.Name, s.Memory.Size, s.Drives = "box", leastBIOS, []Drive{{ID: "disk0", Medium: Disk}}
		start(t, s, options{}).hears("a")
	}
}

func TestTheOrderOfStartIsKept(t *testing.T) {
	for _, p := range []Platform{Q35, PC} {
		t.Run(string(p), func(t *testing.T) {
			s, err := Defaults(Other, p, Host{Accel: qemu.TCG})
			if err != nil {
				t.Fatal(err)
			}
			s.Name = "box"
			s.Drives = []Drive{{ID: "disk0", Medium: Disk}, {ID: "disk1", Medium: Disk, Bus: VirtioSCSI}, {ID: "floppy0", Medium: Floppy}, {ID: "disk2", Medium: Disk, Bus: VirtioBlk}}
			s.Boot, s.Once = []string{"floppy0", "disk0"}, "disk2"
			if err := s.Validate(); err != nil {
				t.Fatal(err)
			}
			r := start(t, s, options{})
			r.hears("d") // disk2, once
			for _, set := range s.Steady() {
				r.execute("qom-set", set, nil)
			}
			for range 2 {
				r.console.Write([]byte("again"))
				r.hears("c") // floppy0
			}
		})
	}
}

func TestDevicesCanBePluggedIn(t *testing.T) { takesDevices(t, qemu.TCG) }

func takesDevices(t *testing.T, accelerator string) {
	for _, p := range []Platform{Q35, PC} {
		t.Run(string(p), func(t *testing.T) {
			s, err := Defaults(Linux, p, Host{Accel: accelerator})
			if err != nil {
				t.Fatal(err)
			}
			s.Name, s.Drives = "box", []Drive{{ID: "disk0", Medium: Disk}}
			s.Processors, s.Memory = Processors{1, 2}, Memory{256 * unit.MiB, unit.GiB, 2}
			r := start(t, s, options{})
			r.hears("a")
			add := func(driver, id string, more map[string]any) {
				m := map[string]any{"driver": driver, "id": id}
				for k, v := range more {
					m[k] = v
				}
				r.execute("device_add", m, nil)
			}
			card := map[Platform]string{Q35: "e1000e", PC: "e1000"}[p]
			for i, at := range s.Free() {
				place := map[string]any{"bus": at.Bus, "addr": at.Addr}
				if i%2 == 0 {
					add(card, fmt.Sprint("card", i), place)
				} else {
					id := fmt.Sprint("disk", i)
					r.execute("blockdev-add", map[string]any{"driver": "null-co", "node-name": id, "size": 1 << 20, "read-zeroes": true}, nil)
					place["drive"] = id
					add("virtio-blk-pci", id, place)
				}
			}
			r.execute("object-add", map[string]any{"qom-type": "memory-backend-ram", "id": "more", "size": 256 << 20}, nil)
			add("pc-dimm", "dimm0", map[string]any{"memdev": "more"})
			var cpus []struct {
				Type  string
				Path  string `json:"qom-path"`
				Props map[string]any
			}
			r.execute("query-hotpluggable-cpus", nil, &cpus)
			for _, c := range cpus {
				if c.Path == "" {
					add(c.Type, "cpu1", c.Props)
				}
			}
		})
	}
}

func TestQEMUKnowsWhatWindowsIsTold(t *testing.T) {
	require.Machines(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// By TCG, as not every host has KVM: it says of names whether it knows them, and then
	// that it cannot do what they stand for.
	cmd := exec.CommandContext(ctx, require.Tool(t, "qemu-system-x86_64"), "-M", "q35", "-accel", "tcg", "-cpu", "qemu64,vmx=off,svm=off"+hyperV,
		"-S", "-m", "64", "-nodefaults", "-display", "none", "-qmp", "stdio")
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"quit"}`)
	if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), "HyperV") || strings.Contains(string(out), "not found") {
		t.Errorf("it says %s", out)
	}
}

func TestAConfinedMachineBoots(t *testing.T) {
	require.Root(t)
	s := made(t, Linux, Host{Accel: qemu.TCG})
	s.Memory.Size, s.Channels = 256*unit.MiB, VirtioChannels
	r := start(t, s, options{user: 700000})
	r.hears("a")
	r.quiet()
}

func TestAConfinedMachineHasATPM(t *testing.T) {
	require.Root(t)
	for _, p := range []Platform{Q35, PC} {
		s, err := Defaults(Linux, p, Host{Accel: qemu.TCG})
		if err != nil {
			t.Fatal(err)
		}
		s.Name, s.TPM, s.Memory.Size, s.Drives = "box", true, 256*unit.MiB, []Drive{{ID: "disk0", Medium: Disk}}
		r := start(t, s, options{user: 700000})
		r.hears("a") // the firmware has started the TPM before
		r.quiet()
	}
}

func TestAMachineBootsAnOverlayOfAForeignImage(t *testing.T) {
	require.Root(t)
	require.Machines(t)
	program, err := qemu.Find(t.Context())
	require.Host(t, "qemu-system-x86_64", err == nil, fmt.Sprint(err))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := t.TempDir()
	flat, text, over := filepath.Join(dir, "disk-flat.vmdk"), filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "over")
	content := append(make([]byte, 1024), sector('z')...)
	for path, content := range map[string][]byte{
		flat: content, text: []byte("# Disk DescriptorFile\nparentCID=ffffffff\nRW 2048 FLAT \"disk-flat.vmdk\" 2\n"),
	} {
		if err := os.WriteFile(path, content, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	base, err := image.Open(text, image.Rules{Within: dir})
	if err != nil {
		t.Fatal(err)
	}
	tool := image.Tool{QEMU: program, Agent: "/proc/self/exe", User: 700000}
	if err := tool.Overlay(ctx, base, over, 0); err != nil {
		t.Fatal(err)
	}
	s := made(t, Linux, Host{Accel: qemu.TCG})
	s.Memory.Size = 256 * unit.MiB
	r := start(t, s, options{user: 700000, disk0: func(hand func(*os.File) int) []argv.Image {
		top, err := os.OpenFile(over, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		all := []argv.Image{{Format: string(image.QCOW2), FD: hand(top)}}
		lower, err := base.Images(hand)
		if err != nil {
			t.Fatal(err)
		}
		return append(all, lower...)
	}})
	r.hears("z")
	r.quiet()
}

func TestOVMFStarts(t *testing.T) {
	for _, firmware := range []Firmware{UEFI, UEFISecure} {
		t.Run(string(firmware), func(t *testing.T) {
			s := made(t, Windows, Host{Accel: qemu.TCG})
			s.Firmware, s.Memory.Size, s.Drives = firmware, leastUEFI, nil
			r := start(t, s, options{})
			r.console.SetReadDeadline(time.Now().Add(patience))
			var all strings.Builder
			part := make([]byte, 4096)
			for !strings.Contains(all.String(), "No bootable option") && !strings.Contains(all.String(), "Shell>") && !strings.Contains(all.String(), "BdsDxe") {
				n, err := r.console.Read(part)
				if err != nil {
					t.Fatalf("it says %q, %v; QEMU says %s", all.String(), err, r.said())
				}
				all.Write(part[:n])
			}
			r.quiet()
		})
	}
}

func TestATPMThatIsNotThereIsAnError(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := FindTPM(t.Context()); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "swtpm") {
		t.Errorf("got %v", err)
	}
}
