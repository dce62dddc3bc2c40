// Package spec is all that the agent of a guest or machine is told at its start,
// by the host, in one JSON document. The agent runs whatever it says: the host
// is trusted, and bounds what it took from users before it writes it here.
package spec

import "github.com/strata-project/strata/internal/keeper/wire"

// MaxSize bounds the document. Unit: bytes.
const MaxSize = 4 << 20

// Words of the kernel's command line, which it hands to the agent as its environment.
const (
	// Emulated: the processor is, so the agent does without what only pays on a real one.
	Emulated = "STRATA_EMULATED=1"
	// ToSave: the system is saved before it is told what to run. So all modules are loaded before
	// the agent answers, also those that no program waits for, and it has threads to spare.
	ToSave = "STRATA_SAVE=1"
)

// Run is one run of one environment.
type Run struct {
	Hostname  string `json:"hostname"`
	System    bool   `json:"system,omitempty"`    // the template's init becomes process 1, the agent a process beside it
	Rehearsal bool   `json:"rehearsal,omitempty"` // it is done and undone at once, and the system waits as before
	Idle      bool   `json:"idle,omitempty"`      // no main program: only files are to be reached
	ReadOnly  bool   `json:"read_only,omitempty"`

	Modules  []string `json:"modules,omitempty"` // that must have been loaded
	Template string   `json:"template"`          // block device of the template's EROFS, such as /dev/vda
	Disk     string   `json:"disk"`              // block device of the private disk's ext4
	Files    []File   `json:"files,omitempty"`
	Tmpfs    []Tmpfs  `json:"tmpfs,omitempty"`
	Volumes  []Volume `json:"volumes,omitempty"`

	Network *Network      `json:"network,omitempty"` // nil: a loopback only
	Memory  int64         `json:"memory,omitempty"`  // limit of the environment's programs, bytes; 0: what the system has
	PIDs    int64         `json:"pids,omitempty"`    // limit of their number; 0: none
	Main    *wire.Process `json:"main,omitempty"`

	Clock   int64  `json:"clock"`   // now, unix nanoseconds
	Entropy []byte `json:"entropy"` // at least 32 bytes that nobody else gets, for the random generator
}

// File is a small file that is written for the environment; with kind app it is
// mounted over its own.
type File struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
}

// Tmpfs is a file system in memory.
type Tmpfs struct {
	Target string `json:"target"`
	Size   int64  `json:"size"` // bytes
	Mode   uint32 `json:"mode"`
	NoExec bool   `json:"no_exec,omitempty"`
}

// Volume is a folder or file of the host.
type Volume struct {
	Tag      string `json:"tag"`            // of the virtiofs device
	File     string `json:"file,omitempty"` // name of the one file in the device that is shown; "": the whole folder
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// Network is what eth0 gets. Addresses are as they go over the wire, of six, four or 16
// bytes: to read text costs an agent much where the processor is emulated.
type Network struct {
	MAC      []byte    `json:"mac"`
	MTU      int       `json:"mtu,omitempty"`
	Address  []Address `json:"address"`
	Gateways [][]byte  `json:"gateways"` // default routes
}

// Address is one of an interface.
type Address struct {
	IP   []byte `json:"ip"`
	Bits int    `json:"bits"` // length of the prefix
}

// Limits are what may change while it runs; 0: none.
type Limits struct {
	Memory int64 `json:"memory"`
	PIDs   int64 `json:"pids"`

	// Processors is how many are to be in use, the first ones; 0: as they are.
	Processors int `json:"processors,omitempty"`

	// Whole is how much memory the machine has, all of which is to be used; 0: as it is.
	// Unit: bytes.
	Whole int64 `json:"whole,omitempty"`
}

// Stats are what the environment's programs use. Its times are in nanoseconds,
// its sizes in bytes.
type Stats struct {
	CPU        int64 `json:"cpu"`
	Memory     int64 `json:"memory"`
	MemoryPeak int64 `json:"memory_peak"`
	OOMKills   int64 `json:"oom_kills"`
	PIDs       int64 `json:"pids"`
	MemoryHits int64 `json:"memory_hits"` // how often a limit was run into
	Swap       int64 `json:"swap"`
	PIDsPeak   int64 `json:"pids_peak"`
	PIDsHits   int64 `json:"pids_hits"`
	DiskSize   int64 `json:"disk_size"` // of the private disk's file system; 0 where it is not known
	DiskFree   int64 `json:"disk_free"`
}

// NoTimer is what an agent's last words begin with in a system that is to be booted once more.
const NoTimer = "the host was too busy for the kernel to measure its timer"
