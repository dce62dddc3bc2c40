package zone

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
)

// The payload's descriptors, after the agent's specification.
const (
	rootFD   = spec.FD + 1
	agentFD  = spec.FD + 2
	volumeFD = spec.FD + 3 // of the first volume
)

// hostFacts is what a plan depends on besides stratum.Plan.
type hostFacts struct {
	dir           string        // folder of runs
	agent         string        // path of strata-agent
	app, system   []byte        // seccomp filters
	files         uint64        // hard limit of open files
	appCgroups    []spec.Cgroup // what kind app sees
	systemCgroups []spec.Cgroup
}

// launch is a whole zone as a value.
type launch struct {
	Keeper  wire.Spec
	Init    spec.Init
	Limits  resource.Limits
	Devices []resource.Device
	Owner   uint32 // host's user id that may divide the control group; 0: nobody
	Notes   notes  // kept beside the keeper, for a daemon that adopts
}

// notes are what further programs of a run depend on.
type notes struct {
	System        bool `json:"system"`
	NewPrivileges bool `json:"new_privileges"`
	// Disks are what limits of reads and writes hold for, as control groups name them.
	Disks []string `json:"disks,omitempty"`
}

// namespaces are the kinds that a zone has of its own.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET |
	unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP

// opened are the settings that belong to a zone's own namespaces; an init sets them.
// Source: what systemd-nspawn leaves writable with a private network.
var opened = []string{"/proc/sys/net", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname"}

// sysctls are docker's: in a network of its own every program may take any port
// and may ping. As in a guest the host gives out addresses and routes: nobody need ask all
// neighbours for them (of five hundred zones each asked all others, again and again).
var sysctls = []spec.Sysctl{
	{Path: "net/ipv4/ip_unprivileged_port_start", Value: "0"},
	{Path: "net/ipv4/ping_group_range", Value: "0 65535"},
	{Path: "net/ipv6/conf/default/accept_ra", Value: "0"}, // of eth0 where it comes later,
	{Path: "net/ipv6/conf/default/router_solicitations", Value: "0"},
	{Path: "net/ipv6/conf/eth0/accept_ra", Value: "0"}, // and where it is there
	{Path: "net/ipv6/conf/eth0/router_solicitations", Value: "0"},
}

const notifySocket = "/run/host/notify"

// Bounds of a zone's tmpfs mounts that nobody asked a size for. Unit: bytes.
const runSize = 64 << 20

// plan is what p becomes on this host. It is pure. Kinds: Invalid.
func plan(p stratum.Plan, f hostFacts) (*launch, error) {
	if err := check(p); err != nil {
		return nil, err
	}
	l := &launch{
		Limits:  limits(p.Resources, nil),
		Devices: resource.DefaultDevices(),
		Notes:   notes{System: p.System, NewPrivileges: p.NewPrivileges || p.System},
		Init: spec.Init{
			Hostname: p.Hostname, Root: rootFD, ReadOnly: p.ReadOnly, System: p.System,
			Devices: sandbox.Devices, Links: sandbox.Links, Mask: sandbox.Masked, Protect: sandbox.Protected, Sysctls: sysctls,
			Cgroups: f.appCgroups, Keep: []int{sandbox.Kill},
		},
	}
	l.files(p)
	l.mounts(p)
	switch {
	case p.System:
		l.system(p, f)
	case p.Idle:
		l.Init.Seccomp = f.app
	default:
		l.Init.Main = process(p.Main, l.Notes, f)
		l.Init.Main.MakeWorkDir = true
	}
	l.keeper(p, f)
	return l, nil
}

func check(p stratum.Plan) error {
	err := p.Check()
	if len(p.Layers) == 0 {
		err = fault.Join(err, fault.Invalidf("a zone needs a layer").At("template"))
	}
	return err
}

// files: an app sees them over its own, a system manages them itself.
func (l *launch) files(p stratum.Plan) {
	for _, f := range p.Files {
		l.Init.Files = append(l.Init.Files, spec.File{Path: f.Path, Data: f.Data, Bind: !p.System})
	}
}

func (l *launch) mounts(p stratum.Plan) {
	for _, t := range p.Tmpfs {
		l.Init.Tmpfs = append(l.Init.Tmpfs, spec.Tmpfs{Target: t.Target, Size: int64(t.Size), Mode: t.Mode, NoExec: true})
	}
	for i, v := range p.Volumes {
		l.Init.Volumes = append(l.Init.Volumes, spec.Volume{FD: volumeFD + i, Target: v.Target})
	}
	stratum.OuterFirst(l.Init.Tmpfs, func(t spec.Tmpfs) string { return t.Target })
	stratum.OuterFirst(l.Init.Volumes, func(v spec.Volume) string { return v.Target })
}

// system is what a template's own init finds besides.
func (l *launch) system(p stratum.Plan, f hostFacts) {
	l.Owner = p.IDBase
	i := &l.Init
	i.Cgroups, i.Open, i.Notify = f.systemCgroups, opened, notifySocket
	i.Tmpfs = append([]spec.Tmpfs{{Target: "/run", Size: runSize, Mode: 0o755}}, i.Tmpfs...)
	i.Files = append(i.Files, spec.File{Path: "/run/host/container-manager", Data: []byte("strata\n")})
	i.Main = process(p.Init("container=strata", "NOTIFY_SOCKET="+notifySocket), l.Notes, f)
	i.Main.Rlimits = nil // an init sets its own
}

func (l *launch) keeper(p stratum.Plan, f hostFacts) {
	dir := path.Join(f.dir, p.ID)
	main := l.Init.Main
	l.Keeper = wire.Spec{
		ID: p.ID, Socket: path.Join(dir, held.Socket), ExitFile: path.Join(dir, held.Exit), StatusFile: path.Join(dir, held.Status),
		Log: wire.Log{Dir: p.Log.Dir, Size: p.Log.Size, Files: p.Log.Files}, Owner: p.IDBase,
		System: p.System,
		TTY:    main != nil && main.TTY, Stdin: main != nil && (main.Stdin || main.TTY && p.System),
		Exec: wire.ExecPath{Agent: f.agent, Join: true},
		Payload: wire.Payload{
			// The agent's folder may be closed to the zone's root, so by descriptor.
			Path: "/proc/self/fd/6", Args: []string{"strata-agent", "init"}, Env: []string{"GOMAXPROCS=1", "GODEBUG=disablethp=1,containermaxprocs=0,updatemaxprocs=0"},
			CloneFlags: namespaces, IDBase: p.IDBase, IDCount: mount.IDs, Slack: slack, Victim: p.Victim,
		},
	}
}

// slack is the agent's timer slack. Go's runtime has a thread that looks after the
// others every 20 µs while they work, which is a fifth of the processor time of a
// start and of no use to the agent. What the agent executes has the usual slack again.
// Unit: nanoseconds.
const slack = 10_000_000

// process is what a program of a zone gets.
func process(p stratum.Process, n notes, f hostFacts) *wire.Process {
	out := &wire.Process{
		Args: p.Args, Env: p.Env, WorkDir: p.WorkDir, User: p.User, TTY: p.TTY, Stdin: p.Stdin, Rows: p.Rows, Cols: p.Cols, Agent: p.Agent,
		Capabilities: sandbox.Numbers(sandbox.App), NoNewPrivs: !n.NewPrivileges, Seccomp: f.app,
	}
	if n.System {
		out.Capabilities, out.Seccomp = sandbox.Numbers(sandbox.System), f.system
	}
	if p.Agent {
		out.Args = append([]string{"strata-agent"}, p.Args...)
	}
	if f.files > 0 {
		out.Rlimits = []wire.Rlimit{{Type: unix.RLIMIT_NOFILE, Soft: f.files, Hard: f.files}}
	}
	return out
}
