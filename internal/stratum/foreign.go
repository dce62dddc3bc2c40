package stratum

import (
	"context"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/unit"
)

// Foreign is a system that strata does not know: it has no template, no main program and
// no agent, and boots from media of its own. Plan.Disk is its disk, where it has one.
type Foreign struct {
	OS       string    // linux, windows, bsd, dos or other
	Image    string    // path of what its disk is made of; "": an empty disk
	Bases    []string  // paths of what its disk lies over, the highest first; the lowest of them lies over Image
	Format   string    // of Image, as it was found when the disk was made
	Import   bool      // the disk is a copy of Image, which is needed no longer
	Blank    unit.Size // of an empty disk
	Disk     bool      // it has a disk
	Network  bool      // it has a network card
	ISO      string    // path of what is in its CD drive; "": nothing
	Boot     []string  // of disk, cd and network, first first; none: disk, then cd
	NoAgent  bool      // there is no port for qemu-guest-agent
	BootOnce string    // what this one start is from; "": Boot
}

// Device is what was attached to a machine, and is in the same place of its board
// ever since. One of the two is set.
type Device struct {
	Place int // from 0 on
	Disk  *api.Disk
	Card  *api.Card
	// Images are a disk's image and those that it lies over, as Fit has found them: the header
	// that tells is QEMU's to write, which may be taken over. Empty: they are as it tells.
	Images []string
}

// Name is what it is called inside its environment.
func (d Device) Name() string {
	if d.Card != nil {
		return d.Card.Name
	}
	return d.Disk.Name
}

// Hoster runs foreign systems, and has places for devices.
type Hoster interface {
	// MakeDisk makes the disk of p.Foreign, and refuses all of p that cannot be run.
	// It returns the format of the image that it was made of. What it made before it
	// failed is left to the caller. Kinds: Invalid, Missing, Conflict (the image is in
	// use), Unable.
	MakeDisk(ctx context.Context, p Plan, tell func(done, total int64)) (format string, err error)
	// DiskSize returns the size of a disk that MakeDisk or EmptyDisk has made.
	DiskSize(path string) (unit.Size, error)
	// EmptyDisk makes a disk at path that holds nothing, to lie over the disk of p.
	EmptyDisk(ctx context.Context, p Plan, path string, size unit.Size) error
	// Hardware says what p.Foreign has, a line for each part, with the reason.
	Hardware(ctx context.Context, p Plan) ([]string, error)
	// Fit tells whether d can be attached to p's machine, a template's or a foreign
	// system's, running or not, and returns it with all that was left open. Kinds: as MakeDisk's.
	Fit(ctx context.Context, p Plan, d Device) (Device, error)
}

// Plugger attaches devices to a run.
type Plugger interface {
	// Plug attaches d, which fits p. tap is a card's cable, which the caller closes; nil:
	// it has none. If Plug fails, nothing is attached.
	Plug(ctx context.Context, p Plan, d Device, tap *Tap) error
	// Unplug takes d away. Kinds: Conflict where the system inside does not let go of it.
	Unplug(ctx context.Context, d Device) error
	// Has tells whether d is plugged in.
	Has(ctx context.Context, d Device) (bool, error)
}

// Answering is a run that may have an agent inside which is not strata's driver's own.
type Answering interface {
	// Answers tells who answers; nil: nobody does.
	Answers() *api.GuestAgent
	// Awaits tells whether somebody may answer one day; Ready waits for that then.
	Awaits() bool
}

// Installer can put strata's own agent into a system that runs.
type Installer interface {
	// Install does, by a guest agent that answers already, and returns once strata's own
	// answers. said is what the installation had to say. Kinds: Unable where nobody
	// answers, or it cannot be installed there; Busy where it does not answer in time.
	Install(ctx context.Context) (said string, err error)
}

// Packer is a driver whose agent can be brought into a system by hand.
type Packer interface {
	// Pack writes a CD with the agent to path. command, typed by root inside with the
	// CD in its drive, installs it.
	Pack(path string) (command string, err error)
}

// Troubled tells what strata has seen go wrong inside, where nobody inside tells.
type Troubled interface {
	// Trouble returns it in words; "": nothing is known of any.
	Trouble() string
}
