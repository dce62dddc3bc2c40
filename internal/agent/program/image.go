package program

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// Image is a program that is ready to be executed, once. See Prepare. What is
// exported may be set before that; the rest holds no Go strings, so that a forked
// child can use it.
type Image struct {
	Session bool // start a session
	TTY     int  // slave side of the controlling terminal, and the standard streams; -1: none
	Birth   Birth

	process *wire.Process
	paths   []*byte // where the program may be, tried in turn
	args    []*byte
	env     []*byte
	dir     *byte // working folder

	uid, gid uintptr
	groups   []uint32
	bounding []uintptr // capabilities to take out of the bounding set
	caps     [2]unix.CapUserData
	header   unix.CapUserHeader
	filter   unix.SockFprog
	strict   bool // no new privileges
	rlimits  []rlimit

	child  newborn
	report int // forked: where a stage that failed is written; shared: message is read

	signals []uintptr // whose action is to become the default
	action  [64]byte  // a struct sigaction of zeros: SIG_DFL
	mask    uint64    // no signal blocked
	message [2]uint32
}

// Birth is what a forked program has of its own from the start. Its zero value
// is a program that is born where its parent is, with its parent's streams.
// Descriptors stay the caller's, and are not needed once Fork has returned.
type Birth struct {
	Streams    *[3]int // standard streams; each at least 3
	Cgroup     int     // folder of the cgroup (v2) to be born in; 0: the parent's
	Namespaces []int   // namespaces to enter, in this order
	Agent      int     // the agent's own program, for wire.Process.Agent; 0: /proc/self/exe
	Expendable bool    // the kernel chooses it as usual when memory runs out, whatever holds for its parent
	Narrow     bool    // with Start: the calling thread loses for good what the program must not be able to gain
}

// UID is the user id that the program will have.
func (img *Image) UID() int { return int(img.uid) }

// SetFilter gives the program a filter that another image has, of which nothing is copied.
func (img *Image) SetFilter(f unix.SockFprog) { img.filter = f }

// Filter is the program's seccomp filter; its Len is 0 where it has none.
func (img *Image) Filter() unix.SockFprog { return img.filter }

// Become turns the calling process, whose only thread of concern is the calling
// one, into the image's program. It returns only if that failed.
func (img *Image) Become() error {
	stage, errno := apply(img)
	return explain(img.process, stage, errno)
}

// ReportSize is the length of a report. Unit: bytes.
const ReportSize = 8

// Explain says in words what a child has reported: nil where b is empty, since
// the program was executed then.
func (img *Image) Explain(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) != ReportSize {
		return root.Fail(root.Internal, "", "start a process: it was cut short")
	}
	return explain(img.process, binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:]))
}

type rlimit struct {
	kind  uintptr
	value unix.Rlimit
}

// The stages of an image's way to its program.
const (
	stageStreams uint32 = iota + 1
	stageNamespace
	stageSession
	stageTTY
	stageRlimit
	stageSeccomp
	stageBounding
	stageWorkDir
	stageUser
	stageCapabilities
	stageFiles
	stageExec
	stages
)

var stageNames = [stages]string{
	"start a process", "set up standard streams", "enter a namespace", "start a session", "take the terminal", "set a resource limit",
	"load the seccomp filter", "drop capabilities", "enter the working folder", "become the user", "set capabilities", "close files", "execute",
}
