package unit

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "4096": 4096, "1k": KiB, "512M": 512 * MiB, "1.5GiB": 1536 * MiB, "10gb": 10 * GiB, " 2T ": 2 * TiB, "7B": 7,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1", "1Q", "1e9", "0x10", "1GG", "NaN", "inf", "99999999999P", "1..5G", "ten"} {
		if got, err := ParseSize(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseSize(%q) = %d, %v; want an invalid fault", text, got, err)
		}
	}
}

func TestASizeIsWrittenWithItsUnit(t *testing.T) {
	for s, want := range map[Size]string{0: "0", 1: "1B", 1023: "1023B", KiB: "1K", 1536: "1.5K", 10 * GiB: "10G"} {
		if got := s.String(); got != want {
			t.Errorf("%d bytes are %q, not %q", int64(s), got, want)
		}
	}
}

func TestSizeReadsBackWhatItWrites(t *testing.T) {
	for _, s := range []Size{0, 1, 1023, KiB, 512 * MiB, 10 * GiB, 3 * TiB} {
		if got, err := ParseSize(s.String()); err != nil || got != s {
			t.Errorf("%d reads back as %d, %v", s, got, err)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("10G")
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := ParseSize(text); err == nil && (s < 0 || s > MaxSize) {
			t.Errorf("ParseSize(%q) = %d, out of bounds", text, s)
		}
	})
}

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string]CPUs{"0": 0, "0.0": 0, "0.001": 1, "0.5": 500, "2": 2000, "8192": 8192000} {
		if got, err := ParseCPUs(text); err != nil || got != want {
			t.Errorf("ParseCPUs(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	// What rounds to none would be no limit at all.
	for _, text := range []string{"", "-1", "NaN", "8193", "many", "0.0001", "1e-9"} {
		if got, err := ParseCPUs(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseCPUs(%q) = %d, %v; want an invalid fault", text, got, err)
		}
	}
}

func TestJSON(t *testing.T) {
	var v struct {
		A, B Size
		C, D CPUs
		E, F Duration
	}
	in := `{"A":"10G","B":4096,"C":0.5,"D":"2","E":"1m30s","F":10}`
	if err := json.Unmarshal([]byte(in), &v); err != nil {
		t.Fatal(err)
	}
	if v.A != 10*GiB || v.B != 4096 || v.C != 500 || v.D != 2000 || time.Duration(v.E) != 90*time.Second || time.Duration(v.F) != 10*time.Second {
		t.Errorf("read %+v", v)
	}
	out, err := json.Marshal(v)
	if want := `{"A":10737418240,"B":4096,"C":0.5,"D":2,"E":"1m30s","F":"10s"}`; err != nil || string(out) != want {
		t.Errorf("wrote %s, %v; want %s", out, err, want)
	}
}
