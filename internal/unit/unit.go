// Package unit reads and writes quantities as people write them: sizes in
// bytes ("512M", "1.5GiB"), processors ("0.5", "2") and durations ("10s").
//
// Sizes are counted in binary steps: K, M, G, T and P, with or without "iB" or
// "B", mean 1024 and its powers, as docker and QEMU have it. What is read is
// bounded, so no sum of two sizes overflows.
//
// The package imports nothing of strata but fault.
package unit

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// Binary steps, in bytes.
const (
	KiB = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
	PiB
)

// MaxSize is the largest size that is read. Unit: bytes.
const MaxSize = 1024 * PiB

// Size is a count of bytes. In JSON it is written as a number and read as a
// number or as text such as "10G".
type Size int64

// ParseSize reads a size such as "512M", "1.5GiB" or "4096" (bytes).
// Kinds: Invalid.
func ParseSize(text string) (Size, error) {
	bad := func(why string) error {
		return fault.Invalidf("%q is not a size: %s", text, why).Help("write a number with K, M, G or T, such as 512M or 10G")
	}
	s := strings.ToUpper(strings.TrimSpace(text))
	digits := strings.TrimRight(s, "KMGTPIB")
	step := int64(1)
	switch suffix := s[len(digits):]; suffix {
	case "", "B":
	case "K", "KB", "KIB":
		step = KiB
	case "M", "MB", "MIB":
		step = MiB
	case "G", "GB", "GIB":
		step = GiB
	case "T", "TB", "TIB":
		step = TiB
	case "P", "PB", "PIB":
		step = PiB
	default:
		return 0, bad("its unit is unknown")
	}
	if strings.Trim(digits, "0123456789.") != "" || digits == "" {
		return 0, bad("it is no number")
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, bad("it is no number")
	}
	f *= float64(step)
	if f > MaxSize {
		return 0, bad("it is more than " + Size(MaxSize).String())
	}
	if f != math.Trunc(f) {
		f = math.Ceil(f)
	}
	return Size(f), nil
}

// String writes the size with the largest unit that leaves it at least 1, with
// one decimal where it is not whole, and less than 1K in bytes: "512B".
func (s Size) String() string {
	units := []struct {
		step int64
		name string
	}{{PiB, "P"}, {TiB, "T"}, {GiB, "G"}, {MiB, "M"}, {KiB, "K"}}
	for _, u := range units {
		if int64(s) >= u.step {
			text := strconv.FormatFloat(float64(s)/float64(u.step), 'f', 1, 64)
			return strings.TrimSuffix(text, ".0") + u.name
		}
	}
	if s == 0 {
		return "0"
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// UnmarshalJSON reads a number of bytes or a text such as "10G".
func (s *Size) UnmarshalJSON(data []byte) error {
	var text string
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	} else {
		text = string(data)
	}
	v, err := ParseSize(text)
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// MaxCPUs is the largest number of processors that is read.
const MaxCPUs = 8192

// CPUs is a share of processor time in thousandths of one processor.
// In JSON it is written as a number of processors (0.5) and read as one or as text.
type CPUs int64

// ParseCPUs reads a number of processors such as "0.5" or "2".
// Kinds: Invalid.
func ParseCPUs(text string) (CPUs, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > MaxCPUs {
		return 0, fault.Invalidf("%q is not a number of processors", text).Help("write a number from 0.01 to %d, such as 0.5 or 2", MaxCPUs)
	}
	n := CPUs(math.Round(f * 1000))
	if n == 0 && f > 0 { // 0 is none
		return 0, fault.Invalidf("%s processors are too few", text).Help("give at least 0.01")
	}
	return n, nil
}

// String writes the number of processors.
func (c CPUs) String() string { return strconv.FormatFloat(float64(c)/1000, 'f', -1, 64) }

// MarshalJSON writes the number of processors.
func (c CPUs) MarshalJSON() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalJSON reads a number of processors, bare or as text.
func (c *CPUs) UnmarshalJSON(data []byte) error {
	v, err := ParseCPUs(strings.Trim(string(data), `"`))
	if err != nil {
		return err
	}
	*c = v
	return nil
}

// Duration is a time span. In JSON it is written and read as text ("1m30s");
// a bare number is read as seconds.
type Duration time.Duration

// ParseDuration reads a span such as "10s" or "1m30s"; a bare number is seconds.
// Kinds: Invalid.
func ParseDuration(text string) (Duration, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(n) && math.Abs(n) < 1e9 {
		return Duration(n * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fault.Invalidf("%q is not a duration", text).Help("write a number with s, m or h, such as 10s or 1m30s")
	}
	return Duration(d), nil
}

// String writes the span as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the span as text.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads text, or a number of seconds.
func (d *Duration) UnmarshalJSON(data []byte) error {
	v, err := ParseDuration(strings.Trim(string(data), `"`))
	if err != nil {
		return err
	}
	*d = v
	return nil
}
