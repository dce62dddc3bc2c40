package vmagent

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	agentspec "github.com/strata-project/strata/internal/agent/spec"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// life is what a run has.
type life struct {
	mu    sync.Mutex
	state int
	asked bool  // to run
	group group // once it runs
	disk  int   // the private disk's root folder, -1 before there is one
	quit  sync.Once

	meeting *port // on which hosts are answered

	console bool          // the main program's terminal is the console
	begun   atomic.Bool   // the main program was started
	over    chan struct{} // closed when it has ended
}

// Places of an environment's that strata puts there.
const notifySocket = "/run/host/notify"

// runSize is that of an init's /run, as a zone has it. Unit: bytes.
const runSize = 64 << 20

// promises lets a program be promised more memory than there is, as it is in a zone:
// the host has more than any environment, so what bounds it is what it uses. A guest's
// kernel would refuse what is larger than the machine, and the program fail otherwise.
var promises = agentspec.Sysctl{Path: "vm/overcommit_memory", Value: "1"}

// sysctls are a zone's: every program may take any port and may ping.
var sysctls = []agentspec.Sysctl{
	promises,
	{Path: "net/ipv4/ip_unprivileged_port_start", Value: "0"},
	{Path: "net/ipv4/ping_group_range", Value: "0 65535"},
}

// run does the one run of this system. It returns once the main program runs, or,
// with kind system, is about to take the place of process 1.
func (a *agent) run(text []byte) error {
	a.mu.Lock()
	again := a.asked
	a.asked = true
	a.mu.Unlock()
	if again {
		return root.Fail("conflict", "", "this system was told what to run already")
	}
	r, err := agentspec.ReadRun(text)
	if err != nil {
		return root.Wrap(err, "read the specification of the run")
	}
	if !r.Idle && (r.Main == nil || len(r.Main.Args) == 0) {
		return root.Fail(root.Invalid, "command", "no command was given")
	}
	if a.do(func() { err = a.put(r) }); err != nil {
		return err
	}
	if r.System && !r.Idle {
		err = a.system(r)
	} else {
		err = a.app(r)
	}
	hurry(false)
	return err
}

// put puts the environment together.
func (a *agent) put(r *spec.Run) error {
	hurry(true) // as this system may be a copy of one that did not
	// First of all: whatever comes may need random numbers, and the time.
	if err := a.reseed(r.Entropy); err != nil {
		return err
	}
	if err := setClock(r.Clock); err != nil {
		return err
	}
	if err := a.inside(r); err != nil {
		return err
	}
	a.mu.Lock()
	a.state = stateRunning
	a.boot = readLine("/proc/sys/kernel/random/boot_id")
	a.mu.Unlock()
	return nil
}

// inside makes the environment's inside, and moves there. Network, file systems and
// control groups know nothing of one another, and the kernel lets each of them wait.
func (a *agent) inside(r *spec.Run) (err error) {
	i := layout(r)
	network, trees := make(chan error, 1), make(chan error, 1)
	go func() {
		network <- a.blame(root.In(root.Wrap(connect(r.Network), "connect the network"), "network"))
	}()
	go func() { trees <- a.trees(r, i) }()
	g, err := makeGroup(r)
	for _, other := range []error{<-trees, <-network} {
		if other != nil {
			return other
		}
	}
	if err != nil {
		return root.Wrap(err, "make the control group")
	}
	a.mu.Lock()
	a.group = g
	a.mu.Unlock()
	if err := root.Cover(i); err != nil {
		return err
	}
	return root.Wrap(unix.Sethostname([]byte(r.Hostname)), "set the hostname")
}

// trees puts root and volumes together.
func (a *agent) trees(r *spec.Run, i *agentspec.Init) (err error) {
	if i.Root, err = a.tree(r); err != nil {
		return err
	}
	for _, v := range r.Volumes {
		fd, dir, err := a.volume(v)
		if err != nil {
			return err
		}
		i.Volumes = append(i.Volumes, agentspec.Volume{FD: fd, Target: v.Target, Dir: dir})
	}
	return nil
}

// layout is the inside of r. An app sees what it sees in a zone; a system has a
// kernel of its own, of which nothing is hidden.
func layout(r *spec.Run) *agentspec.Init {
	i := &agentspec.Init{
		ReadOnly: r.ReadOnly, System: r.System, Links: sandbox.Links,
		Cgroups: []agentspec.Cgroup{{V2: true, Writable: r.System}},
	}
	if r.System {
		i.Whole = true
		i.Tmpfs = []agentspec.Tmpfs{{Target: "/run", Size: runSize, Mode: 0o755}}
		i.Notify = notifySocket
		i.Sysctls = []agentspec.Sysctl{promises}
	} else {
		i.Devices, i.Mask, i.Protect, i.Sysctls = sandbox.Devices, sandbox.Masked, sandbox.Protected, sysctls
	}
	for _, t := range r.Tmpfs {
		i.Tmpfs = append(i.Tmpfs, agentspec.Tmpfs{Target: t.Target, Size: t.Size, Mode: t.Mode, NoExec: t.NoExec})
	}
	for _, f := range r.Files {
		i.Files = append(i.Files, agentspec.File{Path: f.Path, Data: f.Data, Bind: !r.System})
	}
	return i
}
