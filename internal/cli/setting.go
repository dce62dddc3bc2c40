package cli

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/settings"
)

// setting is the flag of one resource. It keeps what was written, so that all
// faults are reported at once.
type setting struct {
	settings.Setting
	text string
}

var _ pflag.Value = (*setting)(nil)

func (s *setting) Set(text string) error { s.text = text; return nil }
func (s *setting) Type() string          { return s.Value }
func (s *setting) String() string        { return s.text }

// settingFlags adds a flag for each resource.
func settingFlags(f *pflag.FlagSet) []*setting {
	var all []*setting
	for _, one := range settings.All {
		s := &setting{Setting: one}
		f.VarP(s, s.Flag, s.Short, s.Means)
		all = append(all, s)
	}
	return all
}

// readSettings reads the flags that were given; every fault is reported. Kinds: Invalid.
func readSettings(all []*setting, f *pflag.FlagSet, into *api.Resources) error {
	var errs []error
	for _, s := range all {
		if f.Changed(s.Flag) {
			errs = append(errs, at(s.Flag, s.Read(s.text, into)))
		}
	}
	return fault.Join(errs...)
}

// settingKeys are what `strata set` calls the resources.
func settingKeys() []string {
	var keys []string
	for _, s := range settings.All {
		keys = append(keys, s.Key())
	}
	return keys
}

func settingPairs() []string {
	var pairs []string
	for _, key := range settingKeys() {
		pairs = append(pairs, key+"=")
	}
	return pairs
}

// wrapped writes words into lines of a help text; at is where the first begins.
func wrapped(words []string, at int) string {
	const width = 80
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteString(",")
			at++
		}
		if at+len(w)+2 > width {
			b.WriteString("\n")
			at = 0
		} else if i > 0 {
			b.WriteString(" ")
			at++
		}
		b.WriteString(w)
		at += len(w)
	}
	return b.String()
}
