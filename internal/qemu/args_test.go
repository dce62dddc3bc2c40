package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/strata-project/strata/internal/unit"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestArgs(t *testing.T) {
	cold := Guest{
		Name: "web", Accelerator: TCG, Memory: 512 * unit.MiB, Processors: 1, TSC: 2450000,
		Kernel: "/vmlinux", Initrd: "/initramfs", Firmware: "/usr/share/qemu/qboot.rom", Ring: true,
		Template: 5, Disk: 6, Control: 7, Monitor: 8, Streams: 9, Console: 10, Events: 11, Tap: 12, MAC: "02:00:00:00:00:01", Untraced: true,
	}
	alone := cold
	alone.Tap, alone.MAC, alone.Ring, alone.TSC, alone.Firmware = 0, "", false, 0, ""
	volumes := cold
	volumes.Accelerator, volumes.Processors, volumes.Volumes = KVM, 4, []Volume{{"volume0", 13}, {"a,b", 14}}
	save := cold
	save.Backing = Backing{File: "/memory", Shared: true}
	clone := cold
	clone.Kernel, clone.Initrd, clone.Incoming, clone.StartStopped, clone.Backing = "", "", true, true, Backing{File: "/memory"}
	turns := cold
	turns.Processors, turns.Turns = 2, true
	huge := cold
	huge.HugePages, huge.Untraced = 2*unit.MiB, false
	for name, g := range map[string]Guest{"cold": cold, "huge": huge, "turns": turns, "alone": alone, "volumes": volumes, "save": save, "clone": clone} {
		t.Run(name, func(t *testing.T) {
			// An option and its value on a line.
			var got strings.Builder
			for i, a := range g.Args() {
				if i > 0 {
					got.WriteString(map[bool]string{true: "\n", false: " "}[strings.HasPrefix(a, "-")])
				}
				got.WriteString(a)
			}
			got.WriteByte('\n')
			file := filepath.Join("testdata", name+".args")
			if *update {
				if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got.String()); d != "" {
				t.Errorf("run the test with -update where this is meant (-want +got):\n%s", d)
			}
		})
	}
}
