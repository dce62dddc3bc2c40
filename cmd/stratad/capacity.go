package main

import (
	"flag"
	"strconv"

	"github.com/strata-project/strata/internal/admission"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/host"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/unit"
)

// The least reserve that is measured: a share of the host, and no less than what a
// kernel and a few daemons take.
const (
	leastShare  = 20 // a twentieth
	leastMemory = 128 * unit.MiB
	leastCPUs   = unit.CPUs(100)
)

// capacityFlags are the flags about what can be guaranteed.
type capacityFlags struct {
	reserveMemory, reserveCPUs       string
	overcommitMemory, overcommitCPUs string
}

func (c *capacityFlags) add(flags *flag.FlagSet) {
	flags.StringVar(&c.reserveMemory, "reserve-memory", "", "")
	flags.StringVar(&c.reserveCPUs, "reserve-cpus", "", "")
	flags.StringVar(&c.overcommitMemory, "overcommit-memory", "", "")
	flags.StringVar(&c.overcommitCPUs, "overcommit-cpus", "", "")
}

// read returns what the flags say; what was not given is -1 for a reserve, and 0
// for a ratio. Kinds: Invalid, with all faults.
func (c capacityFlags) read() (admission.Host, error) {
	h := admission.Host{ReserveMemory: -1, ReserveCPUs: -1}
	var errs []error
	if c.reserveMemory != "" {
		n, err := unit.ParseSize(c.reserveMemory)
		errs, h.ReserveMemory = append(errs, at("reserve-memory", err)), n
	}
	if c.reserveCPUs != "" {
		n, err := unit.ParseCPUs(c.reserveCPUs)
		errs, h.ReserveCPUs = append(errs, at("reserve-cpus", err)), n
	}
	for _, r := range []struct {
		flag, text string
		into       *float64
	}{{"overcommit-memory", c.overcommitMemory, &h.OvercommitMemory}, {"overcommit-cpus", c.overcommitCPUs, &h.OvercommitCPUs}} {
		if r.text == "" {
			continue
		}
		n, err := strconv.ParseFloat(r.text, 64)
		if err != nil || !(n >= 1 && n <= 1000) {
			errs = append(errs, fault.Invalidf("%q is not a ratio", r.text).At(r.flag).Help("write a number from 1 to 1000, such as 1.5"))
		}
		*r.into = n
	}
	return h, fault.Join(errs...)
}

func at(flag string, err error) error {
	if err == nil {
		return nil
	}
	return fault.All(err)[0].At(flag)
}

// capacity fills in what was not given by measuring. The reserve of memory is what
// the host uses now, without what environments of this root hold, and at least a
// twentieth; that of processors begins with a twentieth, and the engine measures it.
func capacity(asked admission.Host, groups *resource.Root) (_ admission.Host, from engine.Reserve, err error) {
	size, err := host.Measure()
	if err != nil {
		return asked, from, err
	}
	asked.Memory, asked.CPUs = size.Memory, size.CPUs
	from = engine.Reserve{Memory: "as --reserve-memory says", CPUs: "as --reserve-cpus says"}
	if asked.ReserveMemory < 0 {
		from.Memory = "measured: what the host used at the daemon's start, at least a twentieth"
		asked.ReserveMemory = max(size.Used-groups.Held(), size.Memory/leastShare, leastMemory)
	}
	if asked.ReserveCPUs < 0 {
		from.CPUs, from.Spent = "a twentieth", groups.Spent
		asked.ReserveCPUs = max(size.CPUs/leastShare, leastCPUs)
	}
	asked.ReserveMemory, asked.ReserveCPUs = min(asked.ReserveMemory, asked.Memory), min(asked.ReserveCPUs, asked.CPUs)
	return asked, from, nil
}
