package api

import "time"

// Task is one process of an environment, or, where Missing says something, why
// those of an environment are not listed, or not all of them.
type Task struct {
	ID          string `json:"id" doc:"Of the environment."`
	Environment string `json:"environment" doc:"Its name."`
	Stratum     string `json:"stratum"`
	PID         int    `json:"pid,omitempty" doc:"Its number inside."`
	Parent      int    `json:"parent,omitempty" doc:"Its parent's number inside."`
	HostPID     int    `json:"host_pid,omitempty" doc:"Its number on the host, where the host knows it."`
	User        string `json:"user,omitempty" doc:"As inside: a name, or a number that has none."`
	CPUTime     int64  `json:"cpu_time,omitempty" doc:"Nanoseconds of processor time since it began."`
	Age         int64  `json:"age,omitempty" doc:"Nanoseconds since it began."`
	Memory      int64  `json:"memory,omitempty" doc:"Bytes resident."`
	Command     string `json:"command,omitempty"`
	Missing     string `json:"missing,omitempty" doc:"Why processes of the environment are not listed."`
}

// TaskList is every process of some environments at one moment.
type TaskList struct {
	Time      time.Time `json:"time"`
	Processes []Task    `json:"processes"`
}

// CPU is how much of one processor it has used on average since it began. Unit: percent.
func (t Task) CPU() float64 {
	if t.Age <= 0 {
		return 0
	}
	return 100 * float64(t.CPUTime) / float64(t.Age)
}

// Counter is one resource of an environment, counted as beancounters did. What is
// not there is not known here, or not set.
type Counter struct {
	Resource  string `json:"resource" doc:"memory, swap, processes, cpu, cpu-time, throttled, disk, disk-read, disk-written, net-received, net-sent, net-in, net-out (in a second), host-memory."`
	Unit      string `json:"unit" enum:"bytes,bytes/s,count,millicpu,nanoseconds"`
	Held      *int64 `json:"held,omitempty" doc:"Now; of what is used up and not given back: since it started."`
	Most      *int64 `json:"most,omitempty" doc:"The most since it started."`
	Guarantee *int64 `json:"guarantee,omitempty"`
	Limit     *int64 `json:"limit,omitempty"`
	Hits      *int64 `json:"hits,omitempty" doc:"How often the limit was run into since it started."`
}

// Pressure is how much of the last 10 seconds something waited for a resource, in percent.
type Pressure struct {
	Some float64 `json:"some" doc:"At least one process waited."`
	Full float64 `json:"full" doc:"All of them waited at once."`
}

// ResourceTable is all that is counted of one environment: the same rows at every stratum.
type ResourceTable struct {
	ID          string              `json:"id"`
	Environment string              `json:"environment"`
	Stratum     string              `json:"stratum"`
	Time        time.Time           `json:"time"`
	Counters    []Counter           `json:"counters"`
	Kills       int64               `json:"oom_kills" doc:"Processes killed for want of memory since it started."`
	Pressure    map[string]Pressure `json:"pressure,omitempty" doc:"By resource: cpu, memory, io. Missing where the kernel has none."`
	Missing     string              `json:"missing,omitempty" doc:"Why what is counted inside is not known."`
}

// Usage is what an environment used in the second before Time, as the host counts it.
type Usage struct {
	ID              string    `json:"id"`
	Environment     string    `json:"environment"`
	Stratum         string    `json:"stratum"`
	State           State     `json:"state"`
	Time            time.Time `json:"time"`
	CPU             int64     `json:"cpu" doc:"Thousandths of a processor."`
	CPUTime         int64     `json:"cpu_time" doc:"Nanoseconds since it started."`
	CPULimit        int64     `json:"cpu_limit,omitempty" doc:"Thousandths of a processor."`
	CPUGuarantee    int64     `json:"cpu_guarantee,omitempty" doc:"Thousandths of a processor."`
	Throttled       int64     `json:"throttled" doc:"Nanoseconds that it was held up by its limit since it started."`
	Memory          int64     `json:"memory" doc:"Bytes that the host holds for it."`
	MemoryMost      int64     `json:"memory_most" doc:"The most that was seen since it started."`
	MemoryLimit     int64     `json:"memory_limit,omitempty" doc:"Of its programs; where it has a kernel of its own that and QEMU are beside it."`
	MemoryGuarantee int64     `json:"memory_guarantee,omitempty" doc:"Likewise."`
	Processes       int64     `json:"processes" doc:"And threads; at a stratum with a kernel of its own, those of the host."`
	ProcessesLimit  int64     `json:"processes_limit,omitempty"`
	Disk            int64     `json:"disk" doc:"Bytes that the private disk takes on the host."`
	DiskLimit       int64     `json:"disk_limit"`
	Read            int64     `json:"read" doc:"Bytes in a second, from disks; 0 where the host does not count them."`
	Written         int64     `json:"written" doc:"Bytes in a second, to disks; 0 where the host does not count them."`
	Received        int64     `json:"received" doc:"Bytes in a second, from its network."`
	Sent            int64     `json:"sent" doc:"Bytes in a second, to its network."`
	ReceivedTotal   int64     `json:"received_total" doc:"Bytes since it started."`
	SentTotal       int64     `json:"sent_total" doc:"Bytes since it started."`
	ReceivedLimit   int64     `json:"received_limit,omitempty" doc:"Bytes in a second."`
	SentLimit       int64     `json:"sent_limit,omitempty" doc:"Bytes in a second."`
}

// HostUsage is how the whole host is used. Its memory is used, shared, guaranteed
// and free; together they are all of it.
type HostUsage struct {
	CPUs             int                 `json:"cpus"`
	CPU              int64               `json:"cpu" doc:"Thousandths of a processor that were used in the last second, by everything."`
	Memory           int64               `json:"memory" doc:"All that there is, in bytes."`
	MemoryUsed       int64               `json:"memory_used" doc:"Held by programs and the kernel."`
	MemoryShared     int64               `json:"memory_shared" doc:"Held for all, and given back when it is needed: pages of files."`
	MemoryGuaranteed int64               `json:"memory_guaranteed" doc:"Promised to environments that do not hold it yet, with what strata spends for them."`
	MemoryFree       int64               `json:"memory_free"`
	Pressure         map[string]Pressure `json:"pressure,omitempty"`
}

// UsageReport is what the host and all environments that run used a moment ago.
type UsageReport struct {
	Time         time.Time `json:"time"`
	Host         HostUsage `json:"host"`
	Partial      bool      `json:"partial,omitempty" doc:"The environments are those whose figures changed since the time that was asked for; all others that were told then are as they were."`
	Environments []Usage   `json:"environments"`
}

// HistoryPoint is what was used in a time that ends at At: averages of what flows,
// the most of what is held.
type HistoryPoint struct {
	At        time.Time `json:"at"`
	CPU       int64     `json:"cpu" doc:"Thousandths of a processor."`
	Memory    int64     `json:"memory"`
	Processes int64     `json:"processes"`
	Read      int64     `json:"read" doc:"Bytes in a second."`
	Written   int64     `json:"written" doc:"Bytes in a second."`
	Received  int64     `json:"received" doc:"Bytes in a second."`
	Sent      int64     `json:"sent" doc:"Bytes in a second."`
}
