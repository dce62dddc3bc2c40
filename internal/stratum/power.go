package stratum

import "context"

// Suspender can be written down as a whole, and go on later in another run.
type Suspender interface {
	// Suspend writes memory and devices into the folder dir, which appears whole or not
	// at all; its disk is written out. The run stands still from then on, and is to be
	// killed; or resumed, once dir is removed. Where it fails, the run goes on. A later
	// Start whose Plan.Saved is dir goes on from there, and takes dir away just before
	// the system runs: where Start fails and dir is there, another one can be tried.
	// Kinds: Unable where it has what cannot be written down or there is no room, Busy.
	Suspend(ctx context.Context, dir string) error
}

// Reviver is a driver that tells what a suspended system needs to go on.
type Reviver interface {
	// SavedKernel is the name of the kernel of the system that Suspend has written into
	// dir. Kinds: Missing, Unable.
	SavedKernel(dir string) (string, error)
}

// Resetter has a reset button.
type Resetter interface {
	// Reset starts its system over, at once: what that has not written out is lost. over
	// tells that the run ends by it, and another is to be started.
	Reset(ctx context.Context) (over bool, err error)
}

// Changer has a CD drive, and systems that know when it is opened.
type Changer interface {
	// Insert puts the image of a CD into the drive, after what is in it is out.
	// Kinds: Invalid where it is none, Missing, Conflict where the system keeps the drive shut.
	Insert(ctx context.Context, iso string) error
	// Eject empties the drive. Kinds: Conflict as Insert's.
	Eject(ctx context.Context) error
}

// Interrupter can be interrupted in a way that no system can mask.
type Interrupter interface {
	Interrupt(ctx context.Context) error
}
