package cli

import (
	"bytes"
	"encoding/json"
	"testing"
)

// TestJSONDoesNothingToATerminal has words in it that others chose.
func TestJSONDoesNothingToATerminal(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	said := "a\x1b[2J\u009b2J\u202eb\x7f\U000e0001 é日\n"
	if err := a.printJSON(map[string]string{"said": said}); err != nil {
		t.Fatal(err)
	}
	want := "{\n" + `  "said": "a\u001b[2J\u009b2J\u202eb\u007f\udb40\udc01 é日\n"` + "\n}\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["said"] != said {
		t.Errorf("it reads as %q, %v", got["said"], err)
	}
}
