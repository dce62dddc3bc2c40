package fault

import "testing"

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "",
		"plain words, ä and 語":       "plain words, ä and 語",
		"\x1b[2Jone\ntwo\tthree\x00": "?[2Jone?two?three?",
		"\u009b31m\u202ebackwards":   "?31m?backwards",
	} {
		if got := Printable(text); got != want {
			t.Errorf("Printable(%q) = %q; want %q", text, got, want)
		}
	}
}
