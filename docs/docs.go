// Package docs holds what programs read of the documents beside it, so that it stands
// in one place: the differences in the contract's table, which `strata plan` prints.
package docs

import (
	_ "embed"
	"strings"
)

//go:embed contract.md
var contract string

// Difference is a promise of the contract that a stratum does not keep as others do.
type Difference struct {
	Row, Promise, Differs string
}

// Differences returns what the contract's table says of a stratum, in its order. A
// machine, which has no column of its own, differs as a guest does.
func Differences(stratum string) []Difference { return differences(contract, stratum) }

func differences(text, stratum string) []Difference {
	all := []Difference{}
	column := -1
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 5 { // "", row, promise, a stratum, ""
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if cells[1] == "row" {
			for i, cell := range cells {
				if cell == stratum || cell == "guest" && stratum == "machine" && column < 0 {
					column = i
				}
			}
			continue
		}
		if column < 0 || column >= len(cells) || cells[column] == "" || strings.HasPrefix(cells[1], "---") {
			continue
		}
		all = append(all, Difference{cells[1], cells[2], cells[column]})
	}
	return all
}
