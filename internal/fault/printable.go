package fault

import (
	"strconv"
	"strings"
)

// Printable returns text without what a terminal would act on, lines and tabs included:
// others may have chosen words that are shown (names of layers, what programs say).
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
