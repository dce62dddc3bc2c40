// Package spec is what the zone driver tells the agent that becomes PID 1 of a
// zone, and the JSON reader with which the agent reads it.
//
// The agent runs once per environment and stays, so this package imports nothing
// that costs memory: no reflection, no formatting. The driver writes a spec with
// encoding/json; a test holds both sides together.
package spec

import "github.com/strata-project/strata/internal/keeper/wire"

// FD is the descriptor from which the agent reads its Init, to the end. The
// descriptors that an Init names follow it.
const FD = wire.PayloadSyncFD + 1

// MaxSize bounds an Init or a wire.Process as JSON. Unit: bytes.
const MaxSize = 16 << 20

// Init says what the inside of a zone looks like and what runs in it.
// Descriptors are numbers in the agent's own table.
type Init struct {
	Hostname string `json:"hostname"`
	Root     int    `json:"root"`      // tree of the root file system
	ReadOnly bool   `json:"read_only"` // the root cannot be written once all is in place

	System bool          `json:"system"` // Main is the template's init, and takes the agent's place
	Main   *wire.Process `json:"main"`   // nil: only the agent runs (idle)

	Devices []string    `json:"devices"` // names below the host's /dev, shown under the same names
	Whole   bool        `json:"whole"`   // the kernel is the environment's own: all its devices and settings are shown
	Cgroups []Cgroup    `json:"cgroups"` // mounted at /sys/fs/cgroup
	Tmpfs   []Tmpfs     `json:"tmpfs"`
	Volumes []Volume    `json:"volumes"`
	Files   []File      `json:"files"`
	Mask    []string    `json:"mask"`    // below /proc or /sys: nothing is seen there
	Protect []string    `json:"protect"` // below /proc: cannot be written
	Open    []string    `json:"open"`    // below a protected path: can be written
	Sysctls []Sysctl    `json:"sysctls"`
	Notify  string      `json:"notify"`  // where the init says that it is up; "": it does not
	Keep    []int       `json:"keep"`    // capabilities that PID 1 of kind app keeps
	Seccomp []byte      `json:"seccomp"` // filter of PID 1 of kind app
	Links   [][2]string `json:"links"`   // symbolic links in /dev: name, target
}

// Cgroup is one mount at or below /sys/fs/cgroup.
type Cgroup struct {
	Name     string `json:"name"`     // folder below /sys/fs/cgroup; "": the place itself
	V2       bool   `json:"v2"`       //
	Options  string `json:"options"`  // v1: controllers, or name=…
	Writable bool   `json:"writable"` //
}

// Tmpfs is a file system in memory. Size is in bytes.
type Tmpfs struct {
	Target string `json:"target"`
	Size   int64  `json:"size"`
	Mode   uint32 `json:"mode"`
	NoExec bool   `json:"noexec"`
}

// Volume is a tree to attach.
type Volume struct {
	FD     int    `json:"fd"`
	Target string `json:"target"`
	Dir    bool   `json:"dir"` // the tree's root is a folder
}

// File is a small file of strata's. Its owner is root, its mode 0644.
type File struct {
	Path string `json:"path"`
	Data []byte `json:"data"`
	Bind bool   `json:"bind"` // shown over what the template has; else written there
}

// Sysctl is a kernel setting of the zone's own namespaces. It is tolerated that
// the kernel does not know it.
type Sysctl struct {
	Path  string `json:"path"` // below /proc/sys
	Value string `json:"value"`
}
