package api

import (
	"time"

	"github.com/strata-project/strata/internal/unit"
)

// Next is what is to follow a wait for room, where it is no start.
type Next struct {
	Stratum string  `json:"stratum,omitempty" doc:"The stratum that it is to be moved to." enum:"zone,guest,machine"`
	Update  *Update `json:"update,omitempty" doc:"What is to be changed."`
}

// Update changes an environment that exists. What is nil stays as it is.
type Update struct {
	Memory          *unit.Size `json:"memory,omitempty" doc:"Memory limit in bytes; 0: none."`
	MemoryGuarantee *unit.Size `json:"memory_guarantee,omitempty" doc:"Memory that it always gets, in bytes; 0: none."`
	Swap            *unit.Size `json:"swap,omitempty" doc:"Most swap space beside memory, in bytes; 0: none."`
	SwapDefault     bool       `json:"swap_default,omitempty" doc:"As much swap space as memory, as where nothing was asked for."`
	CPUs            *unit.CPUs `json:"cpus,omitempty" doc:"Processors, such as 0.5; 0: no limit."`
	CPUGuarantee    *unit.CPUs `json:"cpu_guarantee,omitempty" doc:"Processors that it always gets, such as 0.5; 0: none."`
	CPUWeight       *int64     `json:"cpu_weight,omitempty" minimum:"0" maximum:"10000" doc:"Share of contended processor time; 0: 100."`
	PIDs            *int64     `json:"pids,omitempty" minimum:"0" maximum:"4194304" doc:"Processes and threads; 0: no limit."`
	Disk            *unit.Size `json:"disk,omitempty" doc:"New size of the private disk; it only grows."`
	IOWeight        *int64     `json:"io_weight,omitempty" minimum:"0" maximum:"10000" doc:"Share of contended disk time; 0: 100."`
	IORead          *unit.Size `json:"io_read,omitempty" doc:"Most bytes read in a second; 0: no limit."`
	IOWrite         *unit.Size `json:"io_write,omitempty" doc:"Most bytes written in a second; 0: no limit."`
	IOReadOps       *int64     `json:"io_read_ops,omitempty" minimum:"0" doc:"Most reads in a second; 0: no limit."`
	IOWriteOps      *int64     `json:"io_write_ops,omitempty" minimum:"0" doc:"Most writes in a second; 0: no limit."`
	NetIn           *unit.Size `json:"net_in,omitempty" doc:"Most bytes received in a second; 0: no limit."`
	NetOut          *unit.Size `json:"net_out,omitempty" doc:"Most bytes sent in a second; 0: no limit."`
	CPUSet          *string    `json:"cpuset_cpus,omitempty" maxLength:"1024" doc:"Processors of the host that it runs on, such as 0,2-3; all: all."`
	HugePages       *unit.Size `json:"hugepages,omitempty" doc:"Size of the host's huge pages that its memory lies in: 2M or 1G; 0: usual pages."`
	Reclaim         *string    `json:"reclaim,omitempty" enum:"idle,off" doc:"When it gives back memory that it does not use."`

	Restart      *Restart          `json:"restart,omitempty" doc:"New restart policy."`
	Labels       map[string]string `json:"labels,omitempty" doc:"Labels to set."`
	RemoveLabels []string          `json:"remove_labels,omitempty" maxItems:"1024" doc:"Labels to take away."`
}

// Clone asks for another environment like one that stands still.
type Clone struct {
	Name string `json:"name,omitempty" maxLength:"63" doc:"Of the new one. Default: made up."`
	Copy bool   `json:"copy,omitempty" doc:"Copy the disk where the host's file system cannot share blocks."`
}

// PathStat is what is known of one path inside an environment.
type PathStat struct {
	Name    string    `json:"name" doc:"Last part of the path."`
	Type    string    `json:"type" enum:"file,folder,link,device,fifo,socket"`
	Size    int64     `json:"size"`
	Mode    uint32    `json:"mode" doc:"Permission bits, with set-user-id, set-group-id and sticky."`
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	ModTime time.Time `json:"mod_time"`
	Link    string    `json:"link,omitempty" doc:"What a symbolic link points at."`
}
