// Package wire holds what the daemon, the keeper and the agent say to one
// another. It is compiled into the keeper, so it imports nothing but the
// standard library's small parts.
//
// # Daemon and keeper at start
//
// The daemon runs strata-keeper with these descriptors: SpecFD holds a Spec as
// JSON, to be read to its end; SyncFD is a socket (SOCK_SEQPACKET) on which
// keeper and daemon exchange one Message per packet; PayloadFD and the following
// are the payload's, and reach it as descriptor PayloadSyncFD+1 and following.
//
//	keeper → daemon  {cloned, pid}        the payload exists and waits for "go"
//	daemon → keeper  {go}                 network and all else is in place
//	keeper → daemon  {started} | {failed} the main program runs, or why not
//
//	daemon → keeper  {take} + fd          before "go": who a machine becomes that was started
//	                                      before that was known (a spare), and stands still; the
//	                                      descriptor, if any, is the main program's first client
//	keeper → daemon  {taken}              it is that now
//
// After started or failed the daemon closes the socket. If it is closed before
// "go", or the daemon says {abort} at any time before started, the keeper ends the
// payload and itself, and leaves nothing. A socket closed after "go" is a daemon
// that died: the start goes on.
//
// # Keeper and payload
//
// PayloadSyncFD of the payload is a socket (SOCK_SEQPACKET) to the keeper:
//
//	payload → keeper {tty} + fd           master side of the main program's terminal
//	payload → keeper {notify} + fd        datagram socket on which the init says READY=1
//	keeper → payload {go}                 as soon as the daemon said so; tty and notify may come before
//	payload → keeper {started} + fd | {failed}
//	                                      the descriptor, if any, is the main program's process (pidfd),
//	                                      where that is not the payload's first
//	payload → keeper {ended, status}      how the main program ended, before the payload exits;
//	                                      where it is missing, the payload's own wait status counts
//
// A payload that is hostile can say anything on this socket: every message is
// bounded by MaxMessage and nothing in it is trusted beyond its own exit status.
//
// # Daemon and keeper later
//
// The keeper listens on Spec.Socket (SOCK_SEQPACKET, mode 0600). A connection
// carries one Request, and Replies; descriptors travel by SCM_RIGHTS.
//
//	status  → one Reply
//	watch   → a Reply now, one when ready, one when a machine's main program has
//	          ended, one when all has, then the end
//	attach  + fd → a Reply; the descriptor then speaks frames of package api/stream
//	exec    + fd → a Reply once the program runs or failed; then frames
//	signal  → a Reply
//	drop    → a Reply; what has told its end is killed, and has ended for everybody
//	console + fd → as attach, for a machine's console
//
// # Keeper and exec
//
// An exec'd program is the keeper's own child inside the payload's namespaces. It
// starts as `strata-agent enter` (program ExecArgs, an empty environment, user and
// group 0 of the payload's user namespace, a session of its own) with standard
// streams, ExecSyncFD, and ExecProcessFD, from which it reads its Process as JSON
// to the end. ExecSyncFD is a socket (SOCK_SEQPACKET) to the keeper:
//
//	program → keeper {tty} + fd           master side of its terminal
//	program → keeper {started} | {failed}
//
// Started may be left out: the end of the socket (closed by a successful execve)
// without {failed} means the same. With a terminal the standard streams are
// /dev/null until the program opens the terminal itself.
//
// # Machines
//
// Where the payload is QEMU, the main program and those of exec are beyond a port,
// as package vmagent/port has it: channel 0 is the main program's, its Started and
// Failed are what {started} and {failed} of the payload are else, Ready is READY=1, and
// its Exit is how the run ended. QEMU waits for no {go}; what it waits for is the
// agent's to tell, and a Started that is early counts from {go} on. Where there is no main program, Started says that the
// system runs. The payload says {failed} where QEMU cannot be executed; that its socket
// closes says nothing. Until Started a daemon that goes ends the payload, since nobody
// else tells the agent inside what to run. A process beside QEMU that ends before
// it ends the machine.
//
// A run without Exit ends well, with status 0, where an init has switched the machine
// off, and as by SIGHUP where it has reset it. All else is a crash: the record's
// Crash says why, and its status is that of a program killed by what killed QEMU, else
// by SIGKILL.
//
// # Ready
//
// A run is ready as soon as it has started; where the payload sent {notify}
// before that, as soon as READY=1 came on that socket.
//
// A keeper whose payload has ended writes the ExitRecord, answers its watchers,
// serves attached clients until they have everything (bounded), and ends.
package wire

// Descriptors of a keeper at its start.
const (
	SpecFD    = 3
	SyncFD    = 4
	PayloadFD = 5
)

// PayloadSyncFD is the payload's end of its socket to the keeper; the files of
// Spec.Payload follow it.
const PayloadSyncFD = 3

// ExecSyncFD and ExecProcessFD are an exec'd program's.
const (
	ExecSyncFD    = 3
	ExecProcessFD = 4
)

// ExecArgs are the arguments with which the agent is run for an exec.
var ExecArgs = []string{"strata-agent", "enter"}

// MaxMessage bounds one packet on every socket of this package. Unit: bytes.
const MaxMessage = 64 << 10

// Spec is all that a keeper is told.
type Spec struct {
	ID         string   `json:"id"`
	Socket     string   `json:"socket"`      // control socket to listen on
	ExitFile   string   `json:"exit_file"`   // where the ExitRecord goes, replaced atomically
	StatusFile string   `json:"status_file"` // where Status goes once started, for a daemon that adopts
	Log        Log      `json:"log"`
	Payload    Payload  `json:"payload"`
	System     bool     `json:"system,omitempty"` // the payload is an init: its power-off is a good end
	TTY        bool     `json:"tty"`              // the payload will send the terminal's master side
	Stdin      bool     `json:"stdin"`
	Owner      uint32   `json:"owner"` // host user and group id that owns the payload's pipes
	OOM        Counter  `json:"oom"`
	Exec       ExecPath `json:"exec"`
	Attach     int      `json:"attach,omitempty"`  // descriptor of a client that is attached from the start; 0: none
	Machine    *Machine `json:"machine,omitempty"` // the payload is QEMU; nil: it is a zone's
}

// Machine is what a keeper has besides where its payload is QEMU: its ends of
// three sockets (SOCK_STREAM) whose other ends are QEMU's. They are descriptors
// of the keeper's own, and never the payload's.
type Machine struct {
	Streams    int      `json:"streams"`          // the port of package vmagent/port
	Serial     bool     `json:"serial,omitempty"` // that is a serial port, which says nothing of who is at its other end
	Monitor    int      `json:"monitor"`          // QMP, for its events; requests are the daemon's, on another
	Console    int      `json:"console"`          // the system's console
	ConsoleLog Log      `json:"console_log"`
	Beside     []Beside `json:"beside,omitempty"` // in the payload's cgroup
	Alone      bool     `json:"alone,omitempty"`  // no agent is inside: the run starts with go, and is ready then
}

// Beside is a process that starts before the payload and ends with it, such as
// the server of a volume.
type Beside struct {
	Name       string   `json:"name"` // for who is told of its end
	Path       string   `json:"path"`
	Args       []string `json:"args"`
	CloneFlags uint64   `json:"clone_flags,omitempty"`
	FDs        []int    `json:"fds"` // descriptors of the keeper's that it gets, from 3 on
}

// Log says where output is kept: files Dir/log, Dir/log.1 … of at most Size
// bytes each, Files of them. Their format is package logfile's.
type Log struct {
	Dir   string `json:"dir"`
	Size  int64  `json:"size"`
	Files int    `json:"files"`
}

// Payload is the keeper's child.
type Payload struct {
	Path       string   `json:"path"` // program; /proc/self/fd/N of an inherited descriptor will do
	Args       []string `json:"args"`
	Env        []string `json:"env"`
	CloneFlags uint64   `json:"clone_flags"`
	IDBase     uint32   `json:"id_base"`   // with CLONE_NEWUSER: host id of the first of IDCount ids
	IDCount    uint32   `json:"id_count"`  // 0: no mapping
	Join       []string `json:"join"`      // files to write "0" to before the payload is made (its cgroups)
	CgroupFD   int      `json:"cgroup_fd"` // cgroup v2: descriptor of the group to be born in; 0: none
	Files      int      `json:"files"`     // how many descriptors from PayloadFD on are the payload's
	Victim     int      `json:"victim"`    // oom_score_adj of proc(5), of it and of all that the keeper starts; 0: the keeper's
	Slack      int64    `json:"slack"`     // timer slack, nanoseconds, see prctl(2), PR_SET_TIMERSLACK; 0: as usual
}

// UsualSlack is the timer slack of every program that nobody gave another: what has a longer one,
// as the keeper and the agents, gives it back to what it starts. Unit: nanoseconds.
// Source: linux/init_task.h, init_task's timer_slack_ns.
const UsualSlack = 50_000

// ExecPath is what the keeper needs to run further programs inside.
type ExecPath struct {
	Agent string `json:"agent"` // the agent's program on the host, opened at start
	Join  bool   `json:"join"`  // enter the payload's namespaces (zones); else exec is not the keeper's
}

// Counter names a number in a file of a cgroup: the line that starts with Key.
type Counter struct {
	File string `json:"file"`
	Key  string `json:"key"`
}

// Message is one packet between keeper and daemon at start, or keeper and payload.
type Message struct {
	Type   string   `json:"type"` // cloned, take, taken, go, started, failed, tty, notify, ended, abort
	PID    int      `json:"pid,omitempty"`
	Status int      `json:"status,omitempty"` // wait status as wait4 gives it
	Fault  *Failure `json:"fault,omitempty"`
	Take   *Taken   `json:"take,omitempty"` // with take
}

// Taken is who a spare machine becomes: what is in a Spec of any other. Its run folder was
// renamed before, with the sockets in it.
type Taken struct {
	ID         string `json:"id"`
	Socket     string `json:"socket"`
	ExitFile   string `json:"exit_file"`
	StatusFile string `json:"status_file"`
	Log        Log    `json:"log"`
	ConsoleLog Log    `json:"console_log"`
	System     bool   `json:"system,omitempty"`
	TTY        bool   `json:"tty"`
	Stdin      bool   `json:"stdin"`
	Victim     int    `json:"victim"` // as a Payload's
}

// The types of Message.
const (
	Cloned  = "cloned"
	Take    = "take"
	Took    = "taken"
	Go      = "go"
	Started = "started"
	Failed  = "failed"
	TTY     = "tty"
	Notify  = "notify"
	Ended   = "ended"
	Abort   = "abort"
)

// Failure says why something did not start.
type Failure struct {
	Kind    string `json:"kind"`            // word of a fault's kind: missing, unable, invalid, internal, …
	Field   string `json:"field,omitempty"` // "command", "user", "workdir", …
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Request is what the daemon asks a running keeper.
type Request struct {
	Op     string `json:"op"` // status, watch, attach, exec, signal, console, drop
	Signal int    `json:"signal,omitempty"`
	Exec   *Exec  `json:"exec,omitempty"`
}

// Exec is a further program; it is handed on to the agent's `enter` stage.
type Exec struct {
	Process Process  `json:"process"`
	Join    []string `json:"join"` // as Payload.Join; in a v2 group, by its cgroup.procs, the program is born
}

// Process is what the agent's last stage applies to itself before it executes.
type Process struct {
	Args         []string `json:"args"`
	Env          []string `json:"env"`
	WorkDir      string   `json:"workdir"`
	MakeWorkDir  bool     `json:"make_workdir,omitempty"`
	User         string   `json:"user"`
	TTY          bool     `json:"tty"`
	Stdin        bool     `json:"stdin"`
	Rows         uint16   `json:"rows,omitempty"`
	Cols         uint16   `json:"cols,omitempty"`
	Agent        bool     `json:"agent,omitempty"` // Args name a command of the agent
	Capabilities []int    `json:"capabilities"`    // numbers; bounding, permitted, effective, and inheritable none
	NoNewPrivs   bool     `json:"no_new_privs"`
	Seccomp      []byte   `json:"seccomp,omitempty"` // classic BPF, 8 bytes an instruction; or MainFilter
	Rlimits      []Rlimit `json:"rlimits,omitempty"`
}

// MainFilter is the Seccomp of a further program that has the main one's filter. The agent
// of a guest or machine keeps that, so that it need not come, and be read, with each
// program. It is of no length that a filter has: an agent that does not know it refuses.
const MainFilter = "="

// Rlimit is one resource limit of a process.
type Rlimit struct {
	Type int    `json:"type"` // RLIMIT_… of the kernel
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Status is what a keeper says of itself.
type Status struct {
	ID        string      `json:"id"`
	KeeperPID int         `json:"keeper_pid"`
	PID       int         `json:"pid"`
	StartTime uint64      `json:"start_time"`        // of the keeper, field 22 of /proc/PID/stat: tells a reused pid
	Running   bool        `json:"running,omitempty"` // the main program has begun
	Ready     bool        `json:"ready"`
	Told      bool        `json:"told,omitempty"`     // of a machine: how its main program ended is known, and its disk is being written out
	Stalled   bool        `json:"stalled,omitempty"`  // of a machine: it stands still, as the host has no room for what it writes
	LogLost   int64       `json:"log_lost,omitempty"` // bytes of output that could not be logged
	Ended     *ExitRecord `json:"ended,omitempty"`
}

// Reply answers a Request.
type Reply struct {
	Status *Status  `json:"status,omitempty"`
	Fault  *Failure `json:"fault,omitempty"`
}

// ExitRecord is how a run ended, as it is kept in Spec.ExitFile.
type ExitRecord struct {
	Status int    `json:"status"` // 0-255; 128 plus the signal's number
	Signal int    `json:"signal,omitempty"`
	OOM    bool   `json:"oom,omitempty"`
	Crash  string `json:"crash,omitempty"` // why it ended before its program did, in words; from outside and hostile, but printable and bounded
	At     int64  `json:"at"`              // unix nanoseconds
}
