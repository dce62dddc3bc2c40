package virtual

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// maxFiles is how many files a program inside may have open, as in a zone.
const maxFiles = 1 << 20

// entropySize is how many bytes of the host's random generator reseed the
// guest's: as many as its kernel keeps state of. Source: drivers/char/random.c, a
// ChaCha20 key of 32 bytes, twice over.
const entropySize = 64

// Notes are what further programs of a run depend on, kept in the run folder.
type Notes struct {
	System        bool          `json:"system"`
	NewPrivileges bool          `json:"new_privileges"`
	Boot          api.Boot      `json:"boot"`
	Limits        api.Resources `json:"limits"`
	User          uint32        `json:"user,omitempty"` // QEMU's, where it began as a spare; else the environment's

	// What a suspended system can go on in.
	Disk      string `json:"disk,omitempty"`      // path of the private disk
	Volumes   int    `json:"volumes,omitempty"`   // how many
	Program   string `json:"program,omitempty"`   // QEMU, see programOf
	Processor string `json:"processor,omitempty"` // the host's, where the system sees it
	Form      string `json:"form,omitempty"`      // the hardware, see formOf
	Fixed     bool   `json:"fixed,omitempty"`     // its memory was a saved system's, see package qemu/warm

	Present  int       `json:"present,omitempty"`  // processors, of which Boot.CPUs are in use
	Plugged  unit.Size `json:"plugged,omitempty"`  // memory that was plugged in, which Boot.Memory counts
	Plugging bool      `json:"plugging,omitempty"` // it may stand still for it, see plugEmulated

	Disks []string `json:"disks,omitempty"` // what limits of reads and writes hold for
	Alone bool     `json:"alone,omitempty"` // no agent is inside
	// Filter is the sum of the system-call filter that the agent was told for the main
	// program, and keeps; "": it keeps none, or another daemon's.
	Filter string `json:"filter,omitempty"`
	// What is kept of its console, and since when it is this run's: where no agent tells.
	Console string    `json:"console,omitempty"`
	Began   time.Time `json:"began,omitzero"`
}

func notesOf(p stratum.Plan) Notes {
	return Notes{System: p.System, NewPrivileges: p.NewPrivileges || p.System, Limits: p.Resources, Disk: p.Disk, Volumes: len(p.Volumes)}
}

// inside is what the agent is told. It is pure but for clock and entropy, which
// are left out: see fresh.
func inside(p stratum.Plan, filter []byte) spec.Run {
	r := spec.Run{
		Hostname: p.Hostname, System: p.System, Idle: p.Idle, ReadOnly: p.ReadOnly,
		Modules: modules(p), Memory: int64(p.Resources.Memory), PIDs: p.Resources.PIDs,
	}
	for _, f := range p.Files {
		r.Files = append(r.Files, spec.File{Path: f.Path, Data: f.Data})
	}
	for _, t := range p.Tmpfs {
		r.Tmpfs = append(r.Tmpfs, spec.Tmpfs{Target: t.Target, Size: int64(t.Size), Mode: t.Mode, NoExec: true})
	}
	stratum.OuterFirst(r.Tmpfs, func(t spec.Tmpfs) string { return t.Target })
	n := notesOf(p)
	switch {
	case p.System:
		r.Main = process(p.Init(), n, filter)
		r.Main.Rlimits = nil // an init sets its own
	case !p.Idle:
		r.Main = process(p.Main, n, filter)
		r.Main.MakeWorkDir = true
	}
	return r
}

// modules are the names of those that p asks for, as the kernel has them.
func modules(p stratum.Plan) []string {
	var names []string
	for _, name := range p.Modules {
		names = append(names, strings.ReplaceAll(name, "-", "_"))
	}
	return names
}

// fresh adds what no two runs may share.
func fresh(r *spec.Run, now time.Time) {
	r.Clock = now.UnixNano()
	r.Entropy = make([]byte, entropySize)
	rand.Read(r.Entropy) // never fails, see crypto/rand
}

// told notes the filter that the agent is told for the main program of p. What a system
// that goes on was told, it was told by an earlier run, or another daemon.
func (n *Notes) told(p stratum.Plan, filter []byte) {
	if !p.System && !p.Idle && p.Saved == "" {
		n.Filter = sum(filter)
	}
}

// further is what the agent is told for a further program that is to have filter.
func (n *Notes) further(filter []byte) []byte {
	if n.Filter == sum(filter) {
		return []byte(wire.MainFilter)
	}
	return filter
}

// sum is a filter's in Notes.
func sum(filter []byte) string {
	s := sha256.Sum256(filter)
	return hex.EncodeToString(s[:])
}

// process is what a program of a guest gets: with kind app what a zone's has;
// with kind system everything, since the kernel is its own.
func process(p stratum.Process, n Notes, filter []byte) *wire.Process {
	out := &wire.Process{
		Args: p.Args, Env: p.Env, WorkDir: p.WorkDir, User: p.User, TTY: p.TTY, Stdin: p.Stdin, Rows: p.Rows, Cols: p.Cols, Agent: p.Agent,
		Capabilities: sandbox.Numbers(sandbox.App), NoNewPrivs: !n.NewPrivileges, Seccomp: filter,
		Rlimits: []wire.Rlimit{{Type: unix.RLIMIT_NOFILE, Soft: maxFiles, Hard: maxFiles}},
	}
	if n.System {
		out.Capabilities, out.Seccomp = sandbox.All(), nil
	}
	if p.Agent {
		out.Args = append([]string{"strata-vmagent"}, p.Args...)
	}
	return out
}

func (d *Driver) check(p stratum.Plan) error {
	err := p.Check()
	if p.Whole.Path == "" {
		err = fault.Join(err, fault.Invalidf("a %s needs the one image of its template", d.o.Stratum).At("template"))
	}
	return err
}
