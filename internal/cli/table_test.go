package cli

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/strata-project/strata/api"
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

func TestAFactOfSeveralLinesKeepsThem(t *testing.T) {
	var out bytes.Buffer
	f := (&app{out: &out}).facts()
	f.add("state", "stopped (crashed)")
	f.add("last exit", exitText(api.Exit{Status: 137, Signal: 9, Crash: "its kernel panicked; the console's last lines:\n[ 3.0]\tKernel panic\r\n[ 3.1] \x1b[2Jend\n"}))
	f.add("none", "")
	if err := f.w.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "state:      stopped (crashed)\n" +
		"last exit:  status 137, signal 9, crash: its kernel panicked; the console's last lines:\n" +
		"            [ 3.0]?Kernel panic\n" +
		"            [ 3.1] ?[2Jend\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
