package meeting

import (
	"bytes"
	"testing"
)

func TestAPreambleIsFoundInWhateverStandsBeforeIt(t *testing.T) {
	for sentence, before := range map[string]string{
		"nothing":                   "",
		"garbage":                   "garbage",
		"half a preamble":           Magic[:9],
		"a preamble without number": Magic + "\x01\x02",
		"another preamble":          string(Append(nil, 3)),
	} {
		b := append(Append([]byte(before), 7), "rest"...)
		if n, rest, ok := Find(b); !ok || n != 7 || string(rest) != "rest" {
			t.Errorf("%s: got %d, %q, %v", sentence, n, rest, ok)
		}
	}
	if len(Magic) != 16 {
		t.Errorf("the magic has %d bytes", len(Magic))
	}
}

// FuzzFind: a preamble is found however it comes in pieces, and what stands
// before it never hides it.
func FuzzFind(f *testing.F) {
	f.Add([]byte("x"), 3)
	f.Add([]byte(Magic), 17)
	f.Fuzz(func(t *testing.T, before []byte, piece int) {
		all := Append(bytes.Clone(before), 42)
		piece = max(1, piece%64)
		var kept []byte
		var got uint64
		found := false
		for len(all) > 0 {
			n := min(piece, len(all))
			kept = append(kept, all[:n]...)
			all = all[n:]
			if number, rest, ok := Find(kept); ok {
				got, found, kept = number, true, rest
			}
			kept = bytes.Clone(Keep(kept))
			if len(kept) > Size {
				t.Fatalf("%d bytes are kept", len(kept))
			}
		}
		if !found || got != 42 {
			// A preamble's number may be made of the next one's magic: then the host asks again.
			if !bytes.Contains(before, []byte(Magic)) {
				t.Fatalf("not found after %q", before)
			}
		}
	})
}
