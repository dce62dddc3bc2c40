package machine_test

import (
	"bytes"
	"context"
	"image/png"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
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

func TestAMachineHasRoomForEightVolumes(t *testing.T) {
	dir := t.TempDir()
	d, err := machine.New(machine.Options{Places: place.Places{Run: dir, State: dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.MayShow(8); err != nil {
		t.Error(err)
	}
	if err := d.MayShow(9); !fault.Is(err, fault.Invalid) || fault.All(err)[0].Field != "volumes" {
		t.Error(err)
	}
	p := stratum.Plan{ID: "a", Whole: stratum.LayerFile{Path: "/dev/null"}, Volumes: make([]api.Volume, 9)}
	if err := d.Driver.Rehearse(t.Context(), p); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
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
			t.Cleanup(func() { end(t, d, live, p.ID) })
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

// TestHardwareByNameIsDriven boots a template on what else a shop sells: its kernel gets
// the drivers, and the system sees what was asked for.
func TestHardwareByNameIsDriven(t *testing.T) {
	r := virtualtest.New(t, "linux-image-amd64")
	d := newDriver(t, r)
	for name, c := range map[string]struct {
		asked   api.Hardware
		modules []string // in what the kernel says of itself
	}{
		"a pc":              {api.Hardware{Board: "pc", Nested: true, CPUModel: "max"}, []string{"ata_piix 0000:00:01.1", "Nested Virtualization enabled"}},
		"NVMe and an e1000": {api.Hardware{DiskBus: "nvme", Card: "e1000"}, []string{"nvme nvme2", "Intel(R) PRO/1000 Network Driver"}},
		"virtio":            {api.Hardware{DiskBus: "virtio", Card: "virtio"}, []string{"virtio_blk virtio"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			p := r.Plan(t)
			p.Hardware, p.Main = c.asked, stratum.Process{Args: []string{"sleep", "1000"}}
			began := time.Now()
			live, err := d.Start(ctx, p, stratum.StartOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { end(t, d, live, p.ID) })
			t.Logf("it runs after %v", time.Since(began).Round(time.Millisecond))
			log, err := live.(stratum.KernelLogger).KernelLog(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, words := range c.modules {
				if !bytes.Contains(log, []byte(words)) {
					t.Errorf("the kernel does not say %q:\n%s", words, log)
				}
			}
		})
	}
}

// end ends a run and leaves nothing of it.
func end(t *testing.T, d stratum.Driver, live stratum.Live, id string) {
	t.Helper()
	ctx := context.Background() // the test's is over
	if err := live.Kill(ctx); err != nil {
		t.Error(err)
	}
	if _, err := live.Wait(ctx); err != nil {
		t.Error(err)
	}
	if _, err := d.Clean(ctx, id); err != nil {
		t.Error(err)
	}
}
