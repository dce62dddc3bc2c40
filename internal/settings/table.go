package settings

import (
	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/unit"
)

// What a value looks like, for help texts.
const (
	aSize   = "SIZE"
	aNumber = "N"
	aShare  = "WEIGHT"
	aPolicy = "POLICY"
	aList   = "LIST"
	aPage   = "PAGE"
)

// All is the table, in the order of docs/reference/resources.md. What holds at a
// guest and a machine is what their control group on the host, which holds QEMU,
// their agent and balloon can do, and a machine's board with processors.
var All = []Setting{
	size(Setting{Flag: "memory", Short: "m", Value: aSize, Means: "memory limit, such as 512M", Unset: "no limit", Zone: Live, Guest: Within, Machine: Within},
		func(r *api.Resources) *unit.Size { return &r.Memory }, func(u *api.Update) **unit.Size { return &u.Memory }),
	size(Setting{Flag: "memory-guarantee", Value: aSize, Means: "memory that it always gets, such as 256M", Unset: "none", Zone: Live, Guest: Within, Machine: Within},
		func(r *api.Resources) *unit.Size { return &r.MemoryGuarantee }, func(u *api.Update) **unit.Size { return &u.MemoryGuarantee }),
	swap(Setting{Flag: "swap", Value: aSize, Means: "most swap space beside --memory; 0 for none", Unset: "not given: as much as memory", Why: "its own kernel has no swap space", Zone: Live, Guest: Never, Machine: Never}),
	processors(Setting{Flag: "cpus", Value: aNumber, Means: "limit in processors, such as 0.5", Unset: "no limit", Zone: Live, Guest: Within, Machine: Room},
		func(r *api.Resources) *unit.CPUs { return &r.CPUs }, func(u *api.Update) **unit.CPUs { return &u.CPUs }),
	processors(Setting{Flag: "cpu-guarantee", Value: aNumber, Means: "processors that it always gets when it wants them, such as 0.5", Unset: "none", Zone: Live, Guest: Within, Machine: Room},
		func(r *api.Resources) *unit.CPUs { return &r.CPUGuarantee }, func(u *api.Update) **unit.CPUs { return &u.CPUGuarantee }),
	number(Setting{Flag: "cpu-weight", Value: aShare, Means: "share of contended processor time, 1 to 10000 (default 100)", Unset: "100", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *int64 { return &r.CPUWeight }, func(u *api.Update) **int64 { return &u.CPUWeight }),
	cpuList(Setting{Flag: "cpuset-cpus", Value: aList, Means: "processors of the host that it runs on, such as 0,2-3", Unset: "all; so does all", Zone: Live, Guest: Live, Machine: Live}),
	number(Setting{Flag: "pids", Value: aNumber, Means: "limit of processes and threads, the agent's few included (at least 12)", Unset: "no limit", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *int64 { return &r.PIDs }, func(u *api.Update) **int64 { return &u.PIDs }),
	size(Setting{Flag: "disk", Value: aSize, Means: "size of the private disk (default 10G)", Unset: "10G", Zone: Ahead, Guest: Ahead, Machine: Next},
		func(r *api.Resources) *unit.Size { return &r.Disk }, func(u *api.Update) **unit.Size { return &u.Disk }),
	number(Setting{Flag: "io-weight", Value: aShare, Means: "share of contended disk time, 1 to 10000 (default 100)", Unset: "100", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *int64 { return &r.IOWeight }, func(u *api.Update) **int64 { return &u.IOWeight }),
	size(Setting{Flag: "io-read", Value: aSize, Means: "most bytes read from disks in a second, such as 50M", Unset: "no limit", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *unit.Size { return &r.IORead }, func(u *api.Update) **unit.Size { return &u.IORead }),
	size(Setting{Flag: "io-write", Value: aSize, Means: "most bytes written to disks in a second", Unset: "no limit", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *unit.Size { return &r.IOWrite }, func(u *api.Update) **unit.Size { return &u.IOWrite }),
	number(Setting{Flag: "io-read-ops", Value: aNumber, Means: "most reads from disks in a second", Unset: "no limit", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *int64 { return &r.IOReadOps }, func(u *api.Update) **int64 { return &u.IOReadOps }),
	number(Setting{Flag: "io-write-ops", Value: aNumber, Means: "most writes to disks in a second", Unset: "no limit", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *int64 { return &r.IOWriteOps }, func(u *api.Update) **int64 { return &u.IOWriteOps }),
	size(Setting{Flag: "net-in", Value: aSize, Means: "most bytes received from its network in a second, such as 10M", Unset: "no limit", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *unit.Size { return &r.NetIn }, func(u *api.Update) **unit.Size { return &u.NetIn }),
	size(Setting{Flag: "net-out", Value: aSize, Means: "most bytes sent to its network in a second", Unset: "no limit", Zone: Live, Guest: Live, Machine: Live},
		func(r *api.Resources) *unit.Size { return &r.NetOut }, func(u *api.Update) **unit.Size { return &u.NetOut }),
	size(Setting{Flag: "hugepages", Value: aPage, Means: "huge pages of the host that its memory lies in: 2M or 1G", Unset: "usual pages", Why: "its memory is its programs', which ask the kernel for huge pages themselves",
		Zone: Never, Guest: Next, Machine: Next},
		func(r *api.Resources) *unit.Size { return &r.HugePages }, func(u *api.Update) **unit.Size { return &u.HugePages }),
	policy(Setting{Flag: "reclaim", Value: aPolicy, Means: "when memory that it does not use goes back to the host: idle (after five minutes with nothing to do) or off", Unset: "off", Zone: Live, Guest: Live, Machine: Live}),
}
