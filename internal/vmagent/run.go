package vmagent

import (
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	agentspec "github.com/strata-project/strata/internal/agent/spec"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/sandbox"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// life is what a run has.
type life struct {
	mu    sync.Mutex
	state int
	asked bool // to run
	group group
	part  *root.Part // of an app's inside
	disk  int        // the private disk's root folder, -1 before there is one
	quit  sync.Once

	faults  []string // of modules; until the first program runs, there is one who writes
	meeting *port    // on which hosts are answered

	console bool          // the main program's terminal is the console
	begun   atomic.Bool   // the main program was started
	over    chan struct{} // closed when it has ended
}

// Places of an environment's that strata puts there.
const notifySocket = "/run/host/notify"

// runSize is that of an init's /run, as a zone has it. Unit: bytes.
const runSize = 64 << 20

// settings are those of an app's kernel. As in a zone every program may take any port
// and may ping, and may be promised more memory than there is: the host has more than
// any environment, so what bounds it is what it uses.
var settings = []agentspec.Sysctl{
	{Path: "vm/overcommit_memory", Value: "1"},
	{Path: "net/ipv4/ip_unprivileged_port_start", Value: "0"},
	{Path: "net/ipv4/ping_group_range", Value: "0 65535"},
}

// cardSettings are the card's. The host gives out addresses and routes, so that nobody
// need ask for them or look whether another has them.
var cardSettings = []agentspec.Sysctl{
	{Path: "net/ipv6/conf/eth0/accept_dad", Value: "0"},
	{Path: "net/ipv6/conf/eth0/accept_ra", Value: "0"},
	{Path: "net/ipv6/conf/eth0/addr_gen_mode", Value: "1"}, // the agent gives it its address
	{Path: "net/ipv6/conf/eth0/router_solicitations", Value: "0"},
}

// told says whether a word of package spec stood in the kernel's command line.
func told(word string) bool {
	name, value, _ := strings.Cut(word, "=")
	return os.Getenv(name) == value
}

// emulatedSettings are those of a kernel whose processor is emulated besides. Programs have a filter of system calls
// each; to translate it for a processor that is translated itself takes as long as
// thousands of calls that are interpreted, and nearly all of them are decided without it.
var emulatedSettings = []agentspec.Sysctl{{Path: "net/core/bpf_jit_enable", Value: "0"}}

// translatedSettings undo them for a system, whose own programs may be of other kinds.
var translatedSettings = []agentspec.Sysctl{{Path: "net/core/bpf_jit_enable", Value: "1"}}

// kernelSettings are those that the kernel has of its own, for a system, which makes
// its own choice. Promises of memory stay what they are in a zone.
var kernelSettings = []agentspec.Sysctl{
	{Path: "net/ipv4/ip_unprivileged_port_start", Value: "1024"},
	{Path: "net/ipv4/ping_group_range", Value: "1 0"},
	{Path: "net/ipv6/conf/eth0/accept_dad", Value: "1"},
	{Path: "net/ipv6/conf/eth0/accept_ra", Value: "1"},
	{Path: "net/ipv6/conf/eth0/addr_gen_mode", Value: "0"},
	{Path: "net/ipv6/conf/eth0/router_solicitations", Value: "-1"},
}

// run does the one run of this system, or a rehearsal before that. It returns once the main program runs, or,
// with kind system, is about to take the place of process 1.
func (a *agent) run(text []byte) error {
	r, err := agentspec.ReadRun(text)
	if err != nil {
		return root.Wrap(err, "read the specification of the run")
	}
	if !r.Idle && (r.Main == nil || len(r.Main.Args) == 0) {
		return root.Fail(root.Invalid, "command", "no command was given")
	}
	a.mu.Lock()
	again := a.asked
	a.asked = a.asked || !r.Rehearsal
	a.mu.Unlock()
	if again {
		return root.Fail("conflict", "", "this system was told what to run already")
	}
	if r.Rehearsal {
		return a.rehearse(r, text)
	}
	if a.do(func() { err = a.put(r) }); err != nil {
		return err
	}
	if r.System && !r.Idle {
		return a.system(r)
	}
	return a.app(r)
}

// put puts the environment together.
func (a *agent) put(r *spec.Run) error {
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
	a.mu.Unlock()
	return nil
}

// inside makes the environment's inside, and moves there.
func (a *agent) inside(r *spec.Run) (err error) {
	if err := a.loaded(r.Modules); err != nil {
		return err
	}
	i := layout(r)
	if r.Memory != 0 || r.PIDs != 0 {
		err = a.group.limit(spec.Limits{Memory: r.Memory, PIDs: r.PIDs})
	}
	if err == nil && r.System {
		err = root.Wrap(a.group.divide(), "divide the control group")
	}
	if err != nil {
		return err
	}
	if err := a.connect(r.Network); err != nil {
		return a.blame(root.In(root.Wrap(err, "connect the network"), "network"))
	}
	if err := a.trees(r, i); err != nil {
		return err
	}
	if err := a.cover(i); err != nil {
		return err
	}
	if r.Network != nil {
		agreed()
	}
	return root.Wrap(unix.Sethostname([]byte(r.Hostname)), "set the hostname")
}

// cover moves into the new root. What an app sees there of strata's own is built
// already; with kind system little of it is the same.
func (a *agent) cover(i *agentspec.Init) error {
	if !i.System {
		return a.part.Cover(i)
	}
	if err := set(kernelSettings); err != nil {
		return err
	}
	if told(spec.Emulated) {
		_ = set(translatedSettings) // it only costs more
	}
	return root.Cover(i)
}

// set writes settings of the kernel's. What this one does not have, it need not.
func set(all []agentspec.Sysctl) error {
	for _, s := range all {
		if err := writeFile("/proc/sys/"+s.Path, s.Value); err != nil && err != unix.ENOENT {
			return root.Wrap(err, "set "+s.Path)
		}
	}
	return nil
}

// ahead does what every environment needs and none changes, so that a system that
// is saved before it is told what to run has it done.
func (a *agent) ahead() (err error) {
	if a.group, err = makeGroup(); err != nil {
		return root.Wrap(err, "make the control group")
	}
	if err := a.openRandom(); err != nil {
		return err
	}
	if a.part, err = root.Prepare(layout(&spec.Run{}), partPlace); err != nil {
		return err
	}
	if told(spec.ToSave) {
		program.Reserve(spareThreads)
	}
	return nil
}

// spareThreads are what Go would start while the host waits, for system calls that take their
// time where the processor is emulated. With three a start still made one, with six none.
const spareThreads = 6

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

// layout is the inside of r, which without anything in it is that of every app. An app sees what it sees in a zone; a system has a
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
	} else {
		i.Devices, i.Mask, i.Protect = sandbox.Devices, sandbox.Masked, sandbox.Protected
	}
	for _, t := range r.Tmpfs {
		i.Tmpfs = append(i.Tmpfs, agentspec.Tmpfs{Target: t.Target, Size: t.Size, Mode: t.Mode, NoExec: t.NoExec})
	}
	for _, f := range r.Files {
		i.Files = append(i.Files, agentspec.File{Path: f.Path, Data: f.Data, Bind: !r.System})
	}
	return i
}
