package virtual

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/checkpoint"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/held"
	"github.com/strata-project/strata/internal/undo"
	"github.com/strata-project/strata/internal/vmagent/control"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// The users of QEMUs that begin as nobody's: below the ranges of environments, and above
// what useradd gives out (SUB_UID_MAX, 600,100,000). Source: login.defs(5).
const (
	firstUser = 0x3fff0000
	userCount = 1 << 16
)

// sparePatience bounds the end of a spare.
const sparePatience = 20 * time.Second

// Spare is a machine that was started, with its keeper, before it is known for whom.
type Spare struct {
	ID    string
	Tap   *os.File // a port of nothing, and down, until a network takes it
	Group *resource.Group

	d        *Driver
	user     uint32
	given    map[int]checkpoint.FileID // descriptors of QEMU's
	starting *keeper.Starting
	release  func()     // lets go of the id
	back     undo.Stack // from the last made to the first
	once     sync.Once
}

// Spare starts a machine like l, which waits for a saved system or is a copy, for nobody yet. The id is none that
// an environment can have. Of l only the hardware, the accelerator, the memory, what is behind its disks and what it is a copy of count.
func (d *Driver) Spare(ctx context.Context, l *Launch, id string) (_ *Spare, err error) {
	s := &Spare{ID: id, d: d}
	defer s.back.Unless(ctx, &err)
	s.release, err = d.Held.Claim(s.ID)
	if err != nil {
		return nil, err
	}
	d.spares.Store(s.ID, true)
	s.back.Push("let go of the id", func(context.Context) error { s.free(); return nil })
	if s.user, err = d.MakeNobodys(ctx, s.ID); err != nil {
		return nil, err
	}
	s.back.Push("remove the run folder", func(context.Context) error { return d.Held.Remove(s.ID) })
	boot := l.Notes.Boot
	s.Group, err = d.o.Resources.Create(ctx, s.ID, HostLimits(boot.Memory, 0), Devices(boot.Accelerator), 0)
	if err != nil {
		return nil, err
	}
	s.back.Push("remove the control group", func(ctx context.Context) error {
		return errors.Join(s.Group.Kill(ctx), s.Group.Remove(ctx))
	})
	if s.Tap, err = looseTap(); err != nil {
		return nil, err
	}
	s.back.Push("close the tap", func(context.Context) error { return s.Tap.Close() })
	if err := s.start(ctx, l); err != nil {
		return nil, err
	}
	s.back.Push("end the keeper", s.starting.Abort)
	return s, nil
}

func (s *Spare) start(ctx context.Context, l *Launch) error {
	d := s.d
	var h Handed
	defer h.Close()
	if err := d.AddAgent(&h); err != nil {
		return err
	}
	var w Wires
	if err := l.Disks(&w, &h); err != nil {
		return err
	}
	if err := d.Listen(s.ID, &w, &h); err != nil {
		return err
	}
	machine, err := keeperEnds(&w, &h)
	if err != nil {
		return err
	}
	tap, err := Again(s.Tap)
	if err != nil {
		return err
	}
	w.Tap = h.Add(tap)
	if err := l.Hardware.Open(&h); err != nil {
		return err
	}
	if err := l.copied(s.Tap, &h); err != nil {
		return err
	}
	s.given = map[int]checkpoint.FileID{}
	for i, f := range h.Files[1:] {
		id, err := checkpoint.Identify(f)
		if err != nil {
			return err
		}
		s.given[wire.PayloadSyncFD+2+i] = id
	}
	o := keeper.Options{Binary: d.keeper, Spec: d.spec(stratum.Plan{ID: s.ID, IDBase: s.user, Victim: stratum.Victim(0, 0)}, l, w, &h), Files: h.Files, Machine: machine}
	entered, err := held.Enter(&o, s.Group)
	if err != nil {
		return err
	}
	defer entered.Close()
	s.starting, err = keeper.Start(ctx, o)
	return err
}

// Rehearse has the agent in the spare, which must run, do all that r asks for and undo it.
func (s *Spare) Rehearse(ctx context.Context, r spec.Run) error {
	c, err := control.Dial(ctx, s.d.Held.Path(s.ID, ControlSocket))
	if err != nil {
		return err
	}
	defer c.Close()
	r.Rehearsal = true
	fresh(&r, time.Now())
	return fault.Wrap(c.Run(ctx, r), "rehearse a start")
}

// Image writes the spare down, which must stand still.
func (s *Spare) Image() (*Image, error) {
	state, err := stateOf(s.Tap)
	if err != nil {
		return nil, err
	}
	i, err := checkpoint.Take(s.starting.PID, checkpoint.Options{Given: s.given, Own: wire.PayloadSyncFD + 2 + len(s.given)})
	if err != nil {
		return nil, err
	}
	return &Image{i, state}, nil
}

// Monitor is the path of QEMU's monitor.
func (s *Spare) Monitor() string { return s.d.Held.Path(s.ID, MonitorSocket) }

// Gone is closed when the spare has died.
func (s *Spare) Gone() <-chan struct{} { return s.starting.Gone() }

// Bytes is the memory that the spare holds, as its control group counts it.
func (s *Spare) Bytes() int64 {
	held, _, _ := s.Group.Whole()
	return held
}

// End ends the spare and leaves nothing of it.
func (s *Spare) End(ctx context.Context) {
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sparePatience)
		defer cancel()
		if err := s.back.Roll(ctx); err != nil {
			s.d.Log.Warn("a spare machine was not taken away whole", "id", s.ID, "error", err)
		}
	})
}

// Become makes the spare p's, whose id the caller has claimed, and starts l in it. It
// stands still until give, which gets the path of QEMU's monitor and puts p's images
// behind the devices, lets it go. After an error nothing of it is left.
func (s *Spare) Become(ctx context.Context, p stratum.Plan, l *Launch, o stratum.StartOptions, give func(context.Context, string) error) (_ *Live, err error) {
	defer func() {
		if err != nil {
			s.End(ctx)
		}
	}()
	d := s.d
	for _, dir := range []string{p.Log.Dir, p.Console.Dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Internalf("make the folder of logs: %w", err)
		}
	}
	if err := s.Group.Set(hostLimits(l.Notes.Boot.Memory, p.Resources, l.Notes.Disks)); err != nil {
		return nil, err
	}
	l.Notes.Form = formOf(l.Hardware.Form()) // as that of a machine that did not begin as a spare
	n := l.Notes
	n.User, n.Boot.Standby = s.user, true
	if err := d.Held.Rename(ctx, s.ID, p.ID, n); err != nil {
		return nil, err
	}
	s.back.Push("remove the run folder", func(context.Context) error { return d.Held.Remove(p.ID) })
	s.back.Push("end the keeper", s.starting.Abort)
	if t := l.Tap; t != nil {
		if l.Run.Network, err = Network(t); err != nil {
			return nil, err
		}
	}
	if err := s.starting.Take(ctx, d.taken(p, l), o.Attach); err != nil {
		return nil, err
	}
	if err := give(ctx, d.Held.Path(p.ID, MonitorSocket)); err != nil {
		return nil, err
	}
	k, first, err := d.boot(ctx, p, s.Group, l, s.starting)
	if err != nil {
		return nil, err
	}
	s.keep()
	return d.live(d.Held.Take(p.ID, k, s.Group), n, first), nil
}

// free lets go of the id.
func (s *Spare) free() {
	s.d.spares.Delete(s.ID)
	s.release()
}

// keep lets go of what is somebody's now.
func (s *Spare) keep() {
	s.once.Do(func() {})
	s.back.Keep()
	s.Tap.Close() // QEMU has its own
	s.free()
}

// taken is what the keeper of a spare is told of who it becomes.
func (d *Driver) taken(p stratum.Plan, l *Launch) wire.Taken {
	w := d.spec(p, l, Wires{}, &Handed{})
	return wire.Taken{
		ID: w.ID, Socket: w.Socket, ExitFile: w.ExitFile, StatusFile: w.StatusFile, Log: w.Log, ConsoleLog: consoleLog(p),
		System: w.System, TTY: w.TTY, Stdin: w.Stdin, Victim: w.Payload.Victim,
	}
}

// IsSpare tells whether an id is that of a spare of this driver's, or of one that is being made.
func (d *Driver) IsSpare(id string) bool {
	_, ours := d.spares.Load(id)
	return ours
}

// MakeNobodys makes the run folder of a machine that is nobody's yet, and notes the user in it
// that its QEMU is to run as.
func (d *Driver) MakeNobodys(ctx context.Context, id string) (user uint32, err error) {
	d.users.Lock()
	defer d.users.Unlock()
	if user, err = d.freeUser(); err != nil {
		return 0, err
	}
	return user, d.Held.Make(ctx, id, Notes{User: user})
}

// freeUser returns a user that no QEMU of this root runs as, nor one that another root's
// or a later daemon's would choose but by chance.
func (d *Driver) freeUser() (uint32, error) {
	taken := map[uint32]bool{}
	folders, err := os.ReadDir(d.Held.Dir)
	if err != nil {
		return 0, fault.Internalf("list runs: %w", err)
	}
	for _, f := range folders {
		var n Notes
		if d.Held.Notes(f.Name(), &n) == nil { // it is on its way out otherwise
			taken[n.User] = true
		}
	}
	for {
		if u := uint32(firstUser + rand.IntN(userCount)); !taken[u] {
			return u, nil
		}
	}
}

// looseTap makes a tap device that is a port of nothing, and down: it gets its name and
// its network when it is somebody's.
func looseTap() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == nil {
		var r *unix.Ifreq
		if r, err = unix.NewIfreq("vspare%d"); err == nil { // the kernel puts a number in
			r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fault.Unablef("make a tap device: %w", err).Help("the module tun is needed: modprobe tun")
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}
