package api

import (
	"strconv"
	"time"

	"github.com/strata-project/strata/internal/unit"
)

// Spec is what a user asks of an environment. It is kept as asked; what strata
// made of it is in Environment.
type Spec struct {
	Name     string   `json:"name,omitempty" maxLength:"63" doc:"Name for life, also its DNS name. Default: made up."`
	Template string   `json:"template,omitempty" maxLength:"512" doc:"Name or id of the template; none for a foreign system."`
	Kernel   string   `json:"kernel,omitempty" maxLength:"255" doc:"Name or id of the kernel, at strata guest and machine. Default: the default kernel; a machine takes the newest that has drivers for stock hardware where that has none."`
	Modules  []string `json:"modules,omitempty" maxItems:"64" doc:"Modules that its kernel loads before anything runs, at strata guest and machine."`
	Console  string   `json:"console,omitempty" enum:"graphical" doc:"graphical: it is to have a screen and a keyboard, as machines do."`
	UndoDisk bool     `json:"undo_disk,omitempty" doc:"What a run changes on the private disk is gone at its end."`
	Firmware string   `json:"firmware,omitempty" enum:"bios,uefi,secure" doc:"What a machine boots by: bios (SeaBIOS), uefi (OVMF) or secure (OVMF that starts only what is signed; not for templates). Default: bios; what is usual for the kind of a foreign system."`
	Hardware Hardware `json:"hardware,omitzero" doc:"What a template's machine has instead of what is usual. At other strata it is kept aside."`
	Foreign  *Foreign `json:"foreign,omitempty" doc:"A system that strata does not know, instead of a template."`
	Cold     bool     `json:"cold,omitempty" doc:"Boot from the beginning even where a warm start is possible."`
	Kind     string   `json:"kind,omitempty" enum:"app,system" doc:"app: the main program's end is the environment's. system: the template's own init runs. Default: what the template says."`
	Stratum  string   `json:"stratum,omitempty" enum:"zone,guest,machine" doc:"Depth. Default: the shallowest that serves the needs."`
	Needs    []string `json:"needs,omitempty" maxItems:"64" doc:"Reasons to virtualize; GET /v1/needs lists them."`
	Force    bool     `json:"force,omitempty" doc:"Take the stratum that was named even where it does not serve a need."`

	Entrypoint []string `json:"entrypoint,omitempty" maxItems:"1024" doc:"Replaces the template's entrypoint; one empty string clears it."`
	Command    []string `json:"command,omitempty" maxItems:"4096" doc:"Replaces the template's command."`
	Env        []string `json:"env,omitempty" maxItems:"4096" doc:"NAME=value, added to the template's."`
	WorkDir    string   `json:"workdir,omitempty" maxLength:"4096" doc:"Absolute path inside. Default: the template's, or /."`
	User       string   `json:"user,omitempty" maxLength:"256" doc:"user[:group], names or ids inside. Default: the template's, or root."`
	TTY        bool     `json:"tty,omitempty" doc:"Give the main program a terminal."`
	Stdin      bool     `json:"stdin,omitempty" doc:"Keep the main program's standard input open."`

	Hostname string   `json:"hostname,omitempty" maxLength:"63" doc:"Default: the name."`
	DNS      []string `json:"dns,omitempty" maxItems:"8" doc:"Addresses of DNS servers instead of strata's own."`
	Network  string   `json:"network,omitempty" maxLength:"63" doc:"Name of a network, or none. Default: default."`
	Ports    []Port   `json:"ports,omitempty" maxItems:"1024" doc:"Ports published on the host."`

	Resources Resources `json:"resources,omitzero" doc:"Limits."`
	Volumes   []Volume  `json:"volumes,omitempty" maxItems:"256" doc:"Folders and files of the host shown inside."`
	Tmpfs     []Tmpfs   `json:"tmpfs,omitempty" maxItems:"256" doc:"File systems in memory."`

	ReadOnly      bool `json:"read_only,omitempty" doc:"Mount the root file system read-only."`
	NewPrivileges bool `json:"new_privileges,omitempty" doc:"Let programs gain privileges by set-user-id files. Always so for kind system."`

	StopSignal string         `json:"stop_signal,omitempty" maxLength:"16" doc:"Signal that asks the main program to end. Default: the template's, or TERM."`
	StopGrace  *unit.Duration `json:"stop_grace,omitempty" doc:"How long stop waits before it kills; 0: not at all. Default: 10s; 90s for kind system."`
	Restart    Restart        `json:"restart,omitzero" doc:"What to do when it ends by itself."`
	Health     *Health        `json:"health,omitempty" doc:"How to tell that it is well. Default: the template's."`
	AutoRemove bool           `json:"auto_remove,omitempty" doc:"Remove it when it ends."`

	Labels map[string]string `json:"labels,omitempty" doc:"Free words to find it by."`
	Log    LogLimits         `json:"log,omitzero" doc:"How much output is kept."`
}

// Resources are what an environment gets and what it can never pass; zero means
// no limit, no guarantee or the default weight, but for Disk. What each means at
// which stratum, and what changes while it runs, is in docs/reference/resources.md.
type Resources struct {
	Memory          unit.Size  `json:"memory,omitempty" doc:"Most memory, in bytes. At least 6M."`
	MemoryGuarantee unit.Size  `json:"memory_guarantee,omitempty" doc:"Memory that it always gets, in bytes."`
	Swap            *unit.Size `json:"swap,omitempty" doc:"Most swap space beside memory, in bytes; 0: none. Default: as much as memory."`
	CPUs            unit.CPUs  `json:"cpus,omitempty" doc:"Most processors, such as 0.5."`
	CPUGuarantee    unit.CPUs  `json:"cpu_guarantee,omitempty" doc:"Processors that it always gets when it wants them, such as 0.5."`
	CPUWeight       int64      `json:"cpu_weight,omitempty" minimum:"0" maximum:"10000" doc:"Share of contended processor time. Default: 100."`
	PIDs            int64      `json:"pids,omitempty" minimum:"0" maximum:"4194304" doc:"Processes and threads."`
	Disk            unit.Size  `json:"disk,omitempty" doc:"Size of the private disk in bytes. Default: 10G."`
	IOWeight        int64      `json:"io_weight,omitempty" minimum:"0" maximum:"10000" doc:"Share of contended disk time. Default: 100."`
	IORead          unit.Size  `json:"io_read,omitempty" doc:"Most bytes that are read from disks in a second."`
	IOWrite         unit.Size  `json:"io_write,omitempty" doc:"Most bytes that are written to disks in a second."`
	IOReadOps       int64      `json:"io_read_ops,omitempty" minimum:"0" doc:"Most reads from disks in a second."`
	IOWriteOps      int64      `json:"io_write_ops,omitempty" minimum:"0" doc:"Most writes to disks in a second."`
	NetIn           unit.Size  `json:"net_in,omitempty" doc:"Most bytes that are received from its network in a second."`
	NetOut          unit.Size  `json:"net_out,omitempty" doc:"Most bytes that are sent to its network in a second."`
	CPUSet          string     `json:"cpuset_cpus,omitempty" maxLength:"1024" doc:"Processors of the host that it runs on, such as 0,2-3. Default: all, as the word all says too."`
	HugePages       unit.Size  `json:"hugepages,omitempty" doc:"Size of the host's huge pages that the memory of a guest or machine lies in: 2M or 1G. Default: usual pages."`
	Reclaim         string     `json:"reclaim,omitempty" enum:"idle,off" doc:"idle: give memory back that it does not use while it has nothing to do. Default: off."`
}

// AllCPUs stands for no choice of processors.
const AllCPUs = "all"

// Plain returns r without the words that stand for nothing, as it is kept.
func (r Resources) Plain() Resources {
	if r.CPUSet == AllCPUs {
		r.CPUSet = ""
	}
	if r.Reclaim == ReclaimOff {
		r.Reclaim = ""
	}
	return r
}

// Port is one published port.
type Port struct {
	HostIP   string `json:"host_ip,omitempty" maxLength:"45" doc:"Address of the host. Default: all."`
	HostPort uint16 `json:"host_port" minimum:"1" doc:"Port on the host."`
	Port     uint16 `json:"port" minimum:"1" doc:"Port inside."`
	Protocol string `json:"protocol,omitempty" enum:"tcp,udp" doc:"Default: tcp."`
}

// Volume shows a folder or file of the host inside, with the same owners.
type Volume struct {
	Source   string `json:"source" maxLength:"4096" doc:"Absolute path on the host; it must exist."`
	Target   string `json:"target" maxLength:"4096" doc:"Absolute path inside."`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Tmpfs is a file system in memory.
type Tmpfs struct {
	Target string    `json:"target" maxLength:"4096" doc:"Absolute path inside."`
	Size   unit.Size `json:"size,omitempty" doc:"Default: half of the memory limit, or 64M without one."`
	Mode   uint32    `json:"mode,omitempty" maximum:"4095" doc:"Permission bits. Default: 1777 octal."`
}

// Restart says what happens when an environment ends by itself.
type Restart struct {
	Policy string `json:"policy,omitempty" enum:"no,on-failure,always,unless-stopped" doc:"Default: no."`
	Max    int    `json:"max,omitempty" minimum:"0" maximum:"1000000" doc:"Most restarts in a row, with on-failure; 0: no bound."`
}

// Health is a check that runs inside.
type Health struct {
	Test        []string      `json:"test,omitempty" maxItems:"1024" doc:"As docker's: NONE, CMD and words, or CMD-SHELL and one line."`
	Interval    unit.Duration `json:"interval,omitempty" doc:"Default: 30s."`
	Timeout     unit.Duration `json:"timeout,omitempty" doc:"Default: 30s."`
	StartPeriod unit.Duration `json:"start_period,omitempty" doc:"Failures in it do not count. Default: 0s."`
	Retries     int           `json:"retries,omitempty" minimum:"0" maximum:"1000" doc:"Failures in a row that make it unhealthy. Default: 3."`
}

// LogLimits bound what is kept of an environment's output.
type LogLimits struct {
	Size  unit.Size `json:"size,omitempty" doc:"Of one file. Default: 10M."`
	Files int       `json:"files,omitempty" minimum:"0" maximum:"100" doc:"How many files. Default: 3."`
}

// State is what an environment is doing, as users see it.
type State string

// The states. Why an environment stopped is in Exit.
const (
	Created   State = "created"  // made, never started
	Starting  State = "starting" // being started, or about to be started again
	Running   State = "running"
	Paused    State = "paused"
	Stopping  State = "stopping"
	Stopped   State = "stopped"
	Suspended State = "suspended" // written down with its memory; it goes on when it is resumed
	Removing  State = "removing"
)

// Environment is what strata made of a Spec, and how it is doing.
type Environment struct {
	ID           string      `json:"id" doc:"12 hexadecimal digits."`
	Name         string      `json:"name"`
	State        State       `json:"state"`
	Stratum      string      `json:"stratum"`
	Reason       string      `json:"reason" doc:"Why this stratum."`
	Kind         string      `json:"kind"`
	Template     string      `json:"template" doc:"Name it was asked by."`
	TemplateID   string      `json:"template_id"`
	Spec         Spec        `json:"spec"`
	IDBase       uint32      `json:"id_base" doc:"First of its 65,536 user and group ids on the host."`
	Network      Address     `json:"address,omitzero"`
	Ready        bool        `json:"ready" doc:"Running, and well where a health check is set, and booted where the kind is system."`
	Health       string      `json:"health,omitempty" enum:"starting,healthy,unhealthy" doc:"Only with a health check."`
	Failing      int         `json:"failing,omitempty" doc:"Failed health checks in a row."`
	Exit         *Exit       `json:"exit,omitempty" doc:"How the last run ended."`
	Restarts     int         `json:"restarts" doc:"How often the restart policy started it since the user last did."`
	PID          int         `json:"pid,omitempty" doc:"Its first process, as the host numbers it."`
	KeeperPID    int         `json:"keeper_pid,omitempty"`
	Created      time.Time   `json:"created"`
	Started      *time.Time  `json:"started,omitempty"`
	DiskUsed     int64       `json:"disk_used,omitempty" doc:"Bytes of its private disk that the host really holds; only in the detailed answer."`
	DiskSize     int64       `json:"disk_size,omitempty" doc:"Bytes of its private disk at most; only in the detailed answer."`
	DiskMost     int64       `json:"disk_most,omitempty" doc:"Bytes that its private disk can become while it is in use; only in the detailed answer of a running one whose disk grows so."`
	Command      []string    `json:"command" doc:"The main program, as it runs."`
	Notes        []string    `json:"notes,omitempty" doc:"What differs from what was asked, and why."`
	MovingTo     string      `json:"moving_to,omitempty" enum:"zone,guest,machine" doc:"The stratum that it is being moved to."`
	OOM          *OOM        `json:"last_oom,omitempty" doc:"The process that was killed for want of memory last, its main program or another."`
	Moves        []Move      `json:"moves,omitempty" doc:"Its last moves between strata, the oldest first."`
	LastFailure  string      `json:"last_failure,omitempty" doc:"Why the last start failed."`
	Trouble      string      `json:"trouble,omitempty" doc:"What was seen to go wrong while it runs: a foreign system whose firmware finds nothing to boot, and a guest or machine that stands still because the host has no room for its disk (where one environment is asked for, with what to do)."`
	GuestAgent   *GuestAgent `json:"guest_agent,omitempty" doc:"Who answers inside a foreign system; only while somebody does."`
	Disks        []Disk      `json:"disks,omitempty" doc:"Attached to a machine, besides its own disks."`
	Cards        []Card      `json:"cards,omitempty" doc:"Network cards attached to a machine, besides its own."`
	Boot         *Boot       `json:"boot,omitempty" doc:"How its system was started; only at strata with a kernel of their own, while it runs."`
	MemoryUsed   int64       `json:"memory_used,omitempty" doc:"Bytes; only in the detailed answer of a running one."`
	ProcessCount int64       `json:"process_count,omitempty" doc:"Only in the detailed answer of a running one."`
}

// OwnShare is what of Boot's memory the system's own kernel and agent have; the rest is what
// the limit of its programs can be. Debian's 6.1 kernel has 82 MiB of a machine of 128 MiB
// when it is up, and a machine whose kernel lacks memory for its files neither goes on nor
// kills. Unit: bytes.
const OwnShare = 96 * unit.MiB

// Boot is how a system with a kernel of its own was started.
type Boot struct {
	Kernel      string    `json:"kernel" doc:"Name of the kernel."`
	Release     string    `json:"release,omitempty" doc:"Release of the kernel, as uname -r says it."`
	Accelerator string    `json:"accelerator" doc:"kvm: the processor runs it. tcg: QEMU translates it."`
	Why         string    `json:"why,omitempty" doc:"What kvm is known to work by, or why it is not kvm."`
	Warm        bool      `json:"warm" doc:"It was started from a saved system instead of booted."`
	Standby     bool      `json:"standby,omitempty" doc:"It was started from a saved system ahead of time, and stood by."`
	Copied      bool      `json:"copied,omitempty" doc:"It goes on as a copy of a machine that was written down while it waited, with all that QEMU had translated."`
	Cold        string    `json:"cold,omitempty" doc:"Why it was booted."`
	Memory      unit.Size `json:"memory" doc:"Bytes of memory of the virtual machine."`
	MostMemory  unit.Size `json:"most_memory,omitempty" doc:"Bytes of memory that it can have while it runs; 0: those that it has."`
	CPUs        int       `json:"cpus" doc:"Processors of the virtual machine."`
	MostCPUs    int       `json:"most_cpus,omitempty" doc:"Processors that it can have while it runs; 0: those that it has."`
	Turns       bool      `json:"turns,omitempty" doc:"Its processors take turns where it has several, and do the work of one: a QEMU before 8.1 that translates is not safe otherwise."`
}

// Address is where an environment is reached, for life.
type Address struct {
	Network string `json:"network"`
	IPv4    string `json:"ipv4,omitempty"`
	IPv6    string `json:"ipv6,omitempty"`
	MAC     string `json:"mac,omitempty"`
}

// Exit is how a run or a command ended.
type Exit struct {
	Status int       `json:"status" doc:"0-255; 128 plus the signal's number where a signal ended it."`
	Signal int       `json:"signal,omitempty" doc:"Number of the signal that ended it."`
	OOM    bool      `json:"oom,omitempty" doc:"The memory limit was what ended it."`
	Crash  string    `json:"crash,omitempty" doc:"Set where strata's own part was lost (keeper killed, host rebooted)."`
	At     time.Time `json:"at"`
}

// What was short of memory where a process was killed for want of it.
const (
	OOMLimit   = "limit"   // the environment's memory limit
	OOMGroup   = "group"   // a limit that was set inside, such as a service's
	OOMMachine = "machine" // its virtual machine, as a whole
	OOMHost    = "host"    // the host
)

// OOM is a process that was killed for want of memory.
type OOM struct {
	At      time.Time `json:"at"`
	Process string    `json:"process" doc:"The name that it gave itself."`
	PID     int       `json:"pid,omitempty" doc:"Inside, where that could be found out in time."`
	Held    unit.Size `json:"held" doc:"What it held, in bytes."`
	Short   string    `json:"short" enum:"limit,group,machine,host" doc:"What was short of memory: the environment's limit, one that was set inside, its machine or the host."`
	Limit   unit.Size `json:"limit,omitempty" doc:"The limit, where it was the environment's."`
}

// String says it in words: killed python3 (pid 12 inside, 240M) at the memory limit of 256M.
func (o OOM) String() string {
	held := o.Held.String()
	if o.Held >= unit.MiB {
		held = (o.Held / unit.MiB * unit.MiB).String() // a kernel counts pages, people do not
	}
	who := "killed " + o.Process + " (" + held + ")"
	if o.PID != 0 {
		who = "killed " + o.Process + " (pid " + strconv.Itoa(o.PID) + " inside, " + held + ")"
	}
	switch o.Short {
	case OOMGroup:
		return who + " at a memory limit that was set inside"
	case OOMMachine:
		return who + ": its machine was out of memory"
	case OOMHost:
		return who + ": the host was out of memory"
	}
	if o.Limit == 0 {
		return who + " at the memory limit"
	}
	return who + " at the memory limit of " + o.Limit.String()
}

// Process asks for a further program inside a running environment.
type Process struct {
	Command []string `json:"command" minItems:"1" maxItems:"4096"`
	Env     []string `json:"env,omitempty" maxItems:"4096" doc:"Added to the environment's own."`
	WorkDir string   `json:"workdir,omitempty" maxLength:"4096"`
	User    string   `json:"user,omitempty" maxLength:"256"`
	TTY     bool     `json:"tty,omitempty"`
	Stdin   bool     `json:"stdin,omitempty"`
	Rows    uint16   `json:"rows,omitempty"`
	Cols    uint16   `json:"cols,omitempty"`
}
