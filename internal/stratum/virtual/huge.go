package virtual

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// hugeFolder tells of the host's huge pages. Source: Documentation/admin-guide/mm/hugetlbpage.rst.
const hugeFolder = "/sys/kernel/mm/hugepages"

// hugeRoom makes sure that the host has huge pages of a size, which are in folder, for a
// machine's memory; page 0: none are asked for. The host's administrator makes them,
// strata does not. Kinds: Unable, Invalid where memory is no whole number of them.
func hugeRoom(page, memory unit.Size, folder string) error {
	if page == 0 {
		return nil
	}
	if memory%page != 0 {
		return fault.Invalidf("the machine's %s of memory are no whole number of huge pages of %s", memory, page).
			At("resources.hugepages").Help("use 2M, or give it more memory")
	}
	text, err := os.ReadFile(filepath.Join(folder, fmt.Sprintf("hugepages-%dkB", page/unit.KiB), "free_hugepages"))
	if err != nil {
		return fault.Unablef("this host has no huge pages of %s", page).At("resources.hugepages").Help("use another size, or leave it out")
	}
	free, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	need := int64(memory / page)
	if free >= need {
		return nil
	}
	help := fmt.Sprintf("make them first: sysctl vm.nr_hugepages=N, with %d more than now", need-free)
	if page == unit.GiB {
		help = fmt.Sprintf("make them first: boot the host with hugepagesz=1G hugepages=%d", need)
	}
	return fault.Unablef("the host has %d huge pages of %s free, and the machine's %s of memory take %d", free, page, memory, need).
		At("resources.hugepages").Help("%s", help)
}
