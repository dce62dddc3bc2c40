package machine

import (
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/qemu/machine"
)

// Form implements virtual.Hardware.
func (l *launch) Form() []string {
	s := l.spec
	s.Name, s.Plugged = "", nil // what is attached is the record's, and stays as long as it is suspended
	if s.Processors.Most > 0 {
		s.Processors.Count = 1 // they come and go while it runs, and are compared apart
	}
	image := func(format string) argv.Image { return argv.Image{Format: format, FD: 1} }
	f := machine.Files{
		NoReset: true, Control: 1, Monitor: 1, Streams: 1, Console: 1, Events: 1, Drives: map[string][]argv.Image{},
	}
	for _, d := range s.Drives {
		f.Drives[d.ID] = []argv.Image{image("raw")}
	}
	if s.TPM {
		f.TPM = 1
	}
	if l.vars != "" {
		f.Code, f.Vars = image(l.firmware.CodeFormat), image(l.firmware.VarsFormat)
	}
	if l.Tap != nil {
		s.Cards = []machine.Card{{ID: card}}
		f.Taps = map[string]int{card: 1}
	}
	return s.Args(f)
}
