package unit

import (
	"slices"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// ParseList reads the numbers of processors as the kernel writes them, such as "0,2-3";
// they come sorted, each once. Kinds: Invalid.
func ParseList(text string) ([]int, error) {
	var all []int
	for _, part := range strings.Split(text, ",") {
		low, high, span := strings.Cut(part, "-")
		first, err := listed(low)
		last := first
		if err == nil && span {
			last, err = listed(high)
		}
		if err != nil || last < first || len(all) > MaxCPUs {
			return nil, fault.Invalidf("%q is no list of processors", text).Help("write numbers and spans of them, such as 0,2-3")
		}
		for n := first; n <= last; n++ {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// listed reads one number, digits only.
func listed(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && n >= MaxCPUs {
		err = strconv.ErrRange
	}
	return int(n), err
}
