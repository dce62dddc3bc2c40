package guest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/drivertest"
	"github.com/strata-project/strata/internal/stratum/guest"
	"github.com/strata-project/strata/internal/stratum/virtual/virtualtest"
	"github.com/strata-project/strata/internal/unit"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == qemuName {
		os.Exit(impersonate(os.Args[1:]))
	}
	os.Exit(virtualtest.Main(m))
}

// kernelName stands for the newest kernel for guests.
const kernelName = "linux-image-cloud-amd64"

var patience = virtualtest.Patience

// root is a private strata root with a driver.
type root struct {
	*virtualtest.Root
	driver *guest.Driver
}

func newRoot(t testing.TB) *root {
	t.Helper()
	r := &root{Root: virtualtest.New(t, kernelName)}
	r.driver = r.newDriver(t)
	return r
}

func (r *root) options() guest.Options {
	return guest.Options{Places: r.Places, Kernels: r.Kernels, Pool: r.Pool, Resources: r.Groups}
}

func (r *root) newDriver(t testing.TB, change ...func(*guest.Options)) *guest.Driver {
	t.Helper()
	o := r.options()
	for _, c := range change {
		c(&o)
	}
	d, err := guest.New(o)
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

// host lists what guests have on the host.
func (r *root) host(t *testing.T) string { return r.Host(t, "vm") }

func TestContract(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		r := newRoot(t)
		return r.Fixture(t, "vm", func(t testing.TB) stratum.Driver { return r.newDriver(t) })
	})
}

// TestProcessorsThatTakeTurnsAreToldOf compares what is told with how QEMU was started.
func TestProcessorsThatTakeTurnsAreToldOf(t *testing.T) {
	r := newRoot(t)
	for _, processors := range []int{1, 2} {
		t.Run(fmt.Sprint(processors), func(t *testing.T) {
			p := r.sleeping(t)
			p.ID = fmt.Sprintf("%s%d", p.ID, processors)
			p.Resources.CPUs = unit.CPUs(1000 * processors)
			boot := r.start(t, p).(stratum.Booter).Boot()
			pid, _ := r.machine(p.ID)
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil || boot.CPUs != processors || boot.Turns != strings.Contains(string(line), "thread=single") {
				t.Errorf("%+v, of %q, %v", boot, line, err)
			}
			if boot.Turns && processors == 1 {
				t.Error("one processor takes turns")
			}
		})
	}
}
