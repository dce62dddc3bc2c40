package virtual

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

func TestASuspendedSystemKnowsItsKernel(t *testing.T) {
	d, dir := &Driver{}, t.TempDir()
	if name, err := d.SavedKernel(dir); !fault.Is(err, fault.Missing) {
		t.Errorf("of one that is not there: %q, %v", name, err)
	}
	if err := (Saved{Version: savedVersion, Notes: Notes{Boot: api.Boot{Kernel: "old"}}}).write(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, stateFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if name, err := d.SavedKernel(dir); name != "old" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}
