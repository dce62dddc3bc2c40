package unit

import (
	"slices"
	"testing"

	"github.com/strata-project/strata/internal/fault"
)

func TestListsOfProcessors(t *testing.T) {
	for text, want := range map[string][]int{"0": {0}, "0,2-3": {0, 2, 3}, "3,1-2,2": {1, 2, 3}, "7-7": {7}} {
		if got, err := ParseList(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "a", "1-", "-1", "3-1", "1,,2", "0-99999999", "1 2", "+1", "0-3:1/2", "all"} {
		if got, err := ParseList(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzList(f *testing.F) {
	f.Add("0,2-3")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseList(text)
		if err == nil && (len(all) == 0 || len(all) > MaxCPUs || !slices.IsSorted(all)) {
			t.Errorf("%q: %v", text, all)
		}
	})
}
