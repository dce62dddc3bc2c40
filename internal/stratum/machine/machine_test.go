package machine_test

import (
	"bytes"
	"context"
	"image/png"
	"os"
	"regexp"
	"testing"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/drivertest"
	"github.com/strata-project/strata/internal/stratum/machine"
	"github.com/strata-project/strata/internal/stratum/virtual/virtualtest"
)

func TestMain(m *testing.M) { os.Exit(virtualtest.Main(m)) }

func newDriver(t testing.TB, r *virtualtest.Root) stratum.Driver {
	d, err := machine.New(machine.Options{Places: r.Places, Kernels: r.Kernels, Pool: r.Pool, Resources: r.Groups})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestContract(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		r := virtualtest.New(t, "linux-image-amd64")
		return r.Fixture(t, "hw", func(t testing.TB) stratum.Driver { return newDriver(t, r) })
	})
}

// TestFirmwareBootsAMachine looks at what is not a guest's: firmware, screen and
// keyboard, and that UEFI keeps its variables.
func TestFirmwareBootsAMachine(t *testing.T) {
	r := virtualtest.New(t, "linux-image-amd64")
	d := newDriver(t, r)
	for firmware, c := range map[string]struct{ shows, vars string }{
		"bios": {shows: "SeaBIOS"},
		"uefi": {vars: "uefi-vars"},
	} {
		t.Run(firmware, func(t *testing.T) {
			if firmware == "uefi" {
				_, err := os.Stat("/usr/share/OVMF")
				require.Host(t, "ovmf", err == nil, "the package ovmf is not installed")
			}
			ctx := t.Context()
			p := r.Plan(t)
			p.Firmware, p.Main = firmware, stratum.Process{Args: []string{"sleep", "1000"}}
			live, err := d.Start(ctx, p, stratum.StartOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				ctx := context.Background() // the test's is over
				if err := live.Kill(ctx); err != nil {
					t.Error(err)
				}
				if _, err := live.Wait(ctx); err != nil {
					t.Error(err)
				}
				if _, err := d.Clean(ctx, p.ID); err != nil {
					t.Error(err)
				}
			})
			screen := live.(stratum.Screener).Screen()
			picture, err := screen.PNG(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
				t.Error(err)
			}
			if c.shows != "" {
				if _, _, err := screen.Wait(ctx, regexp.MustCompile(c.shows)); err != nil {
					t.Error(err)
				}
			}
			log, err := live.(stratum.KernelLogger).KernelLog(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if got := bytes.Contains(log, []byte("efi: EFI v")); got != (firmware == "uefi") {
				t.Errorf("booted by UEFI: %v", got)
			}
			if c.vars != "" {
				if _, err := os.Stat(p.Disk[:len(p.Disk)-len("disk.ext4")] + c.vars); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
