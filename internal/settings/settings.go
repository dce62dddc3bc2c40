package settings

import (
	"strconv"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// When says when a change of a setting holds.
type When string

// The answers.
const (
	Live   When = "live"                           // at once
	Within When = "live within the machine's size" // at once, as far as the virtual machine is large enough
	Room   When = "live within the board's room"   // at once, as far as the board has room for what is plugged in
	Ahead  When = "live within what is set aside"  // at once, as far as the disk was made to grow
	Next   When = "at the next start"              // refused while it runs
	Never  When = "refused"                        // the stratum has no such setting
)

// Setting is one resource. Its methods work on that one alone.
type Setting struct {
	Flag  string // --cpu-guarantee of run and create
	Short string // one letter, or ""
	Value string // what is written, for help texts
	Means string
	Unset string // what 0, or not giving it, means
	Why   string // why a stratum has no such setting

	Zone, Guest, Machine When

	parse func(text string, r *api.Resources, u *api.Update) error
	apply func(u api.Update, r *api.Resources)
	text  func(r api.Resources) string
}

// Key is what `strata set` calls it: cpu.guarantee.
func (s Setting) Key() string {
	for _, family := range []string{"memory-", "cpu-", "io-", "net-"} {
		if rest, ok := strings.CutPrefix(s.Flag, family); ok {
			return strings.TrimSuffix(family, "-") + "." + rest
		}
	}
	return s.Flag
}

// Field is its name on the wire, within resources.
func (s Setting) Field() string { return strings.ReplaceAll(s.Flag, "-", "_") }

// Read reads text into r. Kinds: Invalid.
func (s Setting) Read(text string, r *api.Resources) error { return s.parse(text, r, &api.Update{}) }

// Change reads text into u. Kinds: Invalid.
func (s Setting) Change(text string, u *api.Update) error { return s.parse(text, &api.Resources{}, u) }

// Apply gives r what u has of it, if u has it.
func (s Setting) Apply(u api.Update, r *api.Resources) { s.apply(u, r) }

// Text writes what r has of it; "" where it has nothing.
func (s Setting) Text(r api.Resources) string { return s.text(r) }

// Differs tells whether it is another in the two.
func (s Setting) Differs(a, b api.Resources) bool { return s.text(a) != s.text(b) }

// At says when a change holds at a stratum, by its name.
func (s Setting) At(stratum string) When {
	switch stratum {
	case "guest":
		return s.Guest
	case "machine":
		return s.Machine
	}
	return s.Zone
}

// Find returns the setting that `strata set` calls key.
func Find(key string) (Setting, bool) {
	for _, s := range All {
		if s.Key() == key {
			return s, true
		}
	}
	return Setting{}, false
}

// Apply returns r as u changes it.
func Apply(r api.Resources, u api.Update) api.Resources {
	for _, s := range All {
		s.apply(u, &r)
	}
	return r
}

// Refused reports what r asks for and the stratum has not. Kinds: Unable.
func Refused(r api.Resources, stratum string) error {
	var errs []error
	for _, s := range All {
		if s.At(stratum) == Never && s.text(r) != "" {
			errs = append(errs, fault.Unablef("a %s has no setting %s: %s", stratum, s.Flag, s.Why).At("resources."+s.Field()))
		}
	}
	return fault.Join(errs...)
}

// Changed tells whether the two differ in what a run at the stratum can take over
// at once.
func Changed(old, now api.Resources, stratum string) bool {
	for _, s := range All {
		if s.At(stratum) != Next && s.Differs(old, now) {
			return true
		}
	}
	return false
}

// Waiting reports what differs in the two and a run at the stratum cannot take over.
// Kinds: Conflict.
func Waiting(old, now api.Resources, stratum string) error {
	var errs []error
	for _, s := range All {
		if s.At(stratum) == Next && s.Differs(old, now) {
			errs = append(errs, fault.Conflictf("%s changes only while the environment is stopped", s.Flag).At("resources."+s.Field()).Help("stop it first, and ask again: its next start has it"))
		}
	}
	return fault.Join(errs...)
}

// of ties a row to its field, by how that is read and written.
func of[T comparable](row Setting, read func(string) (T, error), write func(T) string, in func(*api.Resources) *T, change func(*api.Update) **T) Setting {
	row.parse = func(text string, r *api.Resources, u *api.Update) error {
		v, err := read(text)
		if err != nil {
			return err
		}
		*in(r), *change(u) = v, &v
		return nil
	}
	row.apply = func(u api.Update, r *api.Resources) {
		if v := *change(&u); v != nil {
			*in(r) = *v
		}
	}
	row.text = func(r api.Resources) string {
		var zero T
		if v := *in(&r); v != zero {
			return write(v)
		}
		return ""
	}
	return row
}

func size(row Setting, in func(*api.Resources) *unit.Size, change func(*api.Update) **unit.Size) Setting {
	return of(row, unit.ParseSize, func(n unit.Size) string { return exact(n) }, in, change)
}

// exact writes a size so that it reads back as the same.
func exact(n unit.Size) string {
	if back, err := unit.ParseSize(n.String()); err == nil && back == n {
		return n.String()
	}
	return strconv.FormatInt(int64(n), 10)
}

func processors(row Setting, in func(*api.Resources) *unit.CPUs, change func(*api.Update) **unit.CPUs) Setting {
	return of(row, unit.ParseCPUs, unit.CPUs.String, in, change)
}

func number(row Setting, in func(*api.Resources) *int64, change func(*api.Update) **int64) Setting {
	read := func(text string) (int64, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return 0, fault.Invalidf("%q is not a number", text).Help("write a whole number; 0: %s", row.Unset)
		}
		return n, nil
	}
	return of(row, read, func(n int64) string { return strconv.FormatInt(n, 10) }, in, change)
}

// policy is when memory is given back.
func policy(row Setting) Setting {
	read := func(text string) (string, error) {
		switch text {
		case api.ReclaimIdle:
			return text, nil
		case api.ReclaimOff, "0":
			return api.ReclaimOff, nil
		}
		return "", fault.Invalidf("%q is no policy", text).Help("write idle or off")
	}
	row = of(row, read, func(s string) string { return s },
		func(r *api.Resources) *string { return &r.Reclaim }, func(u *api.Update) **string { return &u.Reclaim })
	return plain(row)
}

// plain has a setting kept without its word for nothing.
func plain(row Setting) Setting {
	apply := row.apply
	row.apply = func(u api.Update, r *api.Resources) {
		apply(u, r)
		*r = r.Plain()
	}
	return row
}

// cpuList are processors of the host. 0 is the first of them, so all takes it away.
func cpuList(row Setting) Setting {
	read := func(text string) (string, error) {
		if text == api.AllCPUs {
			return text, nil
		}
		_, err := unit.ParseList(text)
		return text, err
	}
	row = of(row, read, func(s string) string { return s },
		func(r *api.Resources) *string { return &r.CPUSet }, func(u *api.Update) **string { return &u.CPUSet })
	return plain(row)
}

// swap is the one setting whose 0 says something: none.
func swap(row Setting) Setting {
	row.parse = func(text string, r *api.Resources, u *api.Update) error {
		if text == "default" {
			r.Swap, u.Swap, u.SwapDefault = nil, nil, true
			return nil
		}
		n, err := unit.ParseSize(text)
		if err != nil {
			return err
		}
		r.Swap, u.Swap, u.SwapDefault = &n, &n, false
		return nil
	}
	row.apply = func(u api.Update, r *api.Resources) {
		if u.SwapDefault {
			r.Swap = nil
		}
		if u.Swap != nil {
			r.Swap = u.Swap
		}
	}
	row.text = func(r api.Resources) string {
		if r.Swap == nil {
			return ""
		}
		return exact(*r.Swap)
	}
	return row
}
