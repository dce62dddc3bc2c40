package virtual

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

func TestHugePagesAreThereOrRefusedByName(t *testing.T) {
	folder := t.TempDir()
	dir := filepath.Join(folder, "hugepages-2048kB")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "free_hugepages"), []byte("256\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		page, memory unit.Size
		kind         fault.Kind
		says         string // "": it is let pass
	}{
		"nobody asks":               {0, unit.GiB, 0, ""},
		"there are just enough":     {2 * unit.MiB, 512 * unit.MiB, 0, ""},
		"there are too few":         {2 * unit.MiB, unit.GiB, fault.Unable, "vm.nr_hugepages=N, with 256 more"},
		"the host has no such size": {unit.GiB, unit.GiB, fault.Unable, "another size"},
		"memory is no whole number": {unit.GiB, 512 * unit.MiB, fault.Invalid, "2M"},
	} {
		err := hugeRoom(c.page, c.memory, folder)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		all := fault.All(err)
		if len(all) != 1 || all[0].Kind != c.kind || all[0].Field != "resources.hugepages" || !strings.Contains(all[0].Hint, c.says) {
			t.Errorf("%s: %+v", name, all)
		}
	}
}
