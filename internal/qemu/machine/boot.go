package machine

import "slices"

// Boot indices leave room for Spec.Once before all others. Source: QEMU,
// docs/system/bootindex.rst: the lowest is booted first.
const (
	onceIndex  = 1
	firstIndex = 10
	indexStep  = 10
)

// boot is the order of the IDs that are booted from.
func (s Spec) boot() (order []string) {
	if len(s.Boot) > 0 {
		return s.Boot
	}
	for _, m := range []Medium{Disk, CD, Floppy} {
		for _, d := range s.Drives {
			if d.Medium == m {
				order = append(order, d.ID)
			}
		}
	}
	return order
}

// index is the boot index of a device; ok is false where it is not booted from.
func (s Spec) index(id string) (n int, ok bool) {
	if id == s.Once {
		return onceIndex, true
	}
	return s.usual(id)
}

func (s Spec) usual(id string) (n int, ok bool) {
	at := slices.Index(s.boot(), id)
	return firstIndex + at*indexStep, at >= 0
}

// Setting is a property that is set by QMP's qom-set.
type Setting struct {
	Path     string `json:"path"`
	Property string `json:"property"`
	Value    any    `json:"value"`
}

// Steady returns what ends the one start from Spec.Once: once it is set in the
// running machine, the next reset goes by Spec.Boot. QEMU tells the firmware anew of
// boot indices at each reset, and of -boot once=… SeaBIOS and OVMF know nothing where
// there are indices. None where there is no Once.
func (s Spec) Steady() []Setting {
	if s.Once == "" {
		return nil
	}
	n, ok := s.usual(s.Once)
	if !ok {
		n = -1 // QEMU's word for: not booted from
	}
	return []Setting{{"/machine/peripheral/" + s.Once, "bootindex", n}}
}
