package docs

import (
	"slices"
	"testing"
)

func TestDifferencesAreTheTablesOwn(t *testing.T) {
	const text = "# The contract\n\n| row | promise | zone | guest |\n| --- | --- | --- | --- |\n| one | a | | |\n| two | b | of zones | of guests |\n| three | c | | too |\n"
	const three = "| row | promise | zone | guest | machine |\n| --- | --- | --- | --- | --- |\n| two | b | z | g | m |\n"
	for name, c := range map[string]struct {
		text, stratum string
		want          []Difference
	}{
		"a zone's":                     {text, "zone", []Difference{{"two", "b", "of zones"}}},
		"a guest's":                    {text, "guest", []Difference{{"two", "b", "of guests"}, {"three", "c", "too"}}},
		"a machine's are a guest's":    {text, "machine", []Difference{{"two", "b", "of guests"}, {"three", "c", "too"}}},
		"a machine with its own":       {three, "machine", []Difference{{"two", "b", "m"}}},
		"a stratum that is not known":  {text, "cave", []Difference{}},
		"a text without a table of it": {"nothing | here", "zone", []Difference{}},
	} {
		if got := differences(c.text, c.stratum); !slices.Equal(got, c.want) {
			t.Errorf("%s: %+v; want %+v", name, got, c.want)
		}
	}
}

// TestTheContractIsRead: the document's table has differences at every stratum.
func TestTheContractIsRead(t *testing.T) {
	for _, stratum := range []string{"zone", "guest", "machine"} {
		if len(Differences(stratum)) == 0 {
			t.Errorf("none of %s: has the table of contract.md another form?", stratum)
		}
	}
}
