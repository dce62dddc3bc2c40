package guest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/checkpoint"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

// rehearsalImage is the template of a rehearsal, packed as templates are (package template):
// the folders that every template has, empty, and one program that does what most do before
// their own work, writes a line and ends: testdata/rehearsal.s. Made by
// `mkdir -p DIR/{dev,etc,proc,run,sys,tmp}`, `as rehearsal.s -o r.o && ld -s r.o -o DIR/rehearsal` and
// `mkfs.erofs -zlz4 -T0 --all-root -U 00000000-0000-0000-0000-000000000000 rehearsal.erofs DIR` of erofs-utils 1.5.
//
//go:embed rehearsal.erofs
var rehearsalImage []byte

// rehearsalPlan is an environment that is nobody's, of the same kind of machine as p's.
func rehearsalPlan(p stratum.Plan) stratum.Plan {
	return stratum.Plan{
		ID: "standby", Name: "standby", Hostname: "standby", Kernel: p.Kernel, Modules: p.Modules,
		Resources: api.Resources{Memory: p.Resources.Memory, CPUs: p.Resources.CPUs},
		Whole:     stratum.LayerFile{Path: "rehearsal"},
		Main:      stratum.Process{Args: []string{"/rehearsal"}, Env: []string{"PATH=/"}},
		Files:     []stratum.File{{Path: "/etc/hosts", Data: []byte("127.0.0.1\tlocalhost\n")}},
	}
}

// rehearsalTap has addresses that are nobody's. Source: RFC 5737 and 3849, for documentation.
var rehearsalTap = stratum.Tap{
	MAC: "02:00:00:00:00:02", MTU: 1500,
	Address:  []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")},
	Gateways: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
}

// machineSpare is a clone that has done all once that a start does, and stands still.
type machineSpare struct{ *virtual.Spare }

// classOf is the class that l, which goes on from a saved system, belongs to.
func (d *Driver) classOf(l *launch, p stratum.Plan) (class, error) {
	all := []string{l.key.Digest(), l.Saved.Made.Format(time.RFC3339Nano)}
	// What runs around a spare is of the strata that made it.
	for _, path := range d.Around() {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return class{}, fault.Internalf("look at %s: %w", path, err)
		}
		all = append(all, fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim.Nano()))
	}
	b := l.Notes.Boot
	return class{
		Copyable: checkpoint.Possible && b.Accelerator == qemu.TCG, // KVM's machines are the process's that made them
		Shape:    fmt.Sprint(b.Kernel, " ", b.Memory, " ", b.CPUs, " ", b.Accelerator),
		Key:      strings.Join(all, " "), Of: rehearsalPlan(p),
	}, nil
}

// again is a guest of c as one would be started now, and the saved system that it goes on
// from, which the caller closes. Kinds: Conflict where it would not be of c any more.
func (d *Driver) again(ctx context.Context, c class) (*launch, error) {
	l, err := d.prepare(ctx, c.Of)
	if err != nil {
		return nil, err
	}
	d.warm(ctx, l, c.Of)
	if l.Saved == nil {
		return nil, fault.Conflictf("there is no saved system for spare machines any more")
	}
	if now, err := d.classOf(l, c.Of); err != nil || now.Key != c.Key {
		l.Saved.Close()
		return nil, errors.Join(err, fault.Conflictf("what spare machines are made of has changed"))
	}
	return l, nil
}

// current tells whether a guest like c's would still be of c.
func (d *Driver) current(ctx context.Context, c class) bool {
	l, err := d.again(ctx, c)
	if err != nil {
		return false
	}
	l.Saved.Close()
	return true
}

// machineImage is a machineSpare that was written down.
type machineImage struct{ *virtual.Image }

// Again implements image.
func (i machineImage) Again() (image, error) {
	other, err := i.Image.Again()
	return machineImage{other}, err
}

// spareOf makes a spare of c: a copy of i, or, where that is nil, one that rehearses itself.
func (d *Driver) spareOf(ctx context.Context, c class, i image) (spare, error) {
	l, err := d.again(ctx, c)
	if err != nil {
		return nil, err
	}
	defer l.Saved.Close()
	if i == nil {
		return d.rehearsed(ctx, l, place.SparePrefix)
	}
	l.copied(i)
	s, err := d.Spare(ctx, l.Launch, place.SparePrefix+place.Moment())
	return machineSpare{s}, err
}

// imageOf makes an image of c.
func (d *Driver) imageOf(ctx context.Context, c class) (image, error) {
	l, err := d.again(ctx, c)
	if err != nil {
		return nil, err
	}
	defer l.Saved.Close()
	s, err := d.rehearsed(ctx, l, place.SavingPrefix)
	if err != nil {
		return nil, err
	}
	defer s.End(ctx)
	var i *virtual.Image
	for end := time.Now().Add(leavePatience); ; time.Sleep(10 * time.Millisecond) {
		if i, err = s.Image(); err == nil {
			break
		}
		// QEMU has not seen yet that nobody speaks to it any more.
		if !fault.Is(err, fault.Conflict) || time.Now().After(end) || ctx.Err() != nil {
			return nil, err
		}
	}
	l.copied(machineImage{i})
	if err := d.tryOut(ctx, l); err != nil {
		i.Close()
		return nil, err
	}
	return machineImage{i}, nil
}

// tryOut starts l, which is a copy, and waits for it to answer.
func (d *Driver) tryOut(ctx context.Context, l *launch) error {
	ctx, cancel := context.WithTimeout(ctx, greetPatience)
	defer cancel()
	s, err := d.Spare(ctx, l.Launch, place.SavingPrefix+place.Moment())
	if err != nil {
		return err
	}
	defer s.End(ctx)
	q, err := qemu.Dial(ctx, s.Monitor())
	if err != nil {
		return fault.Wrap(err, "try a copy out")
	}
	q.Close()
	return nil
}

// greetPatience is how long a copy may take to answer on a busy host; it takes 20 ms on a quiet one.
const greetPatience = 15 * time.Second

// leavePatience is how long QEMU may take to close what was connected to it.
const leavePatience = time.Second

// copied has l be a copy of i, which stands still until disks are put in.
func (l *launch) copied(i image) {
	l.Copy = i.(machineImage).Image
	l.Machine.OwnEntropy = true
	l.Disks = func(w *virtual.Wires, h *virtual.Handed) error {
		if err := rehearsalTemplate(w, h); err != nil {
			return err
		}
		disk, err := blankMemory(blankDisk)
		if err != nil {
			return err
		}
		w.Disk = h.Add(disk)
		return nil
	}
}

// rehearsed makes a spare like l that has rehearsed; what for is in its id.
func (d *Driver) rehearsed(ctx context.Context, l *launch, prefix string) (_ machineSpare, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.Patience())
	defer cancel()
	id := prefix + place.Moment()
	disk := filepath.Join(d.standbyDir(), id)
	if err := d.o.Pool.Create(ctx, disk, blankDisk); err != nil {
		return machineSpare{}, err
	}
	defer d.o.Pool.Remove(disk) // the machine has it open
	l.Machine.Rehearsed, l.Machine.OwnEntropy = true, true
	l.Machine.Ring = false // a ring is of the process that made it; Give opens disks as they are to be
	l.Disks = func(w *virtual.Wires, h *virtual.Handed) error {
		w.MAC = warm.SourceMAC
		return d.rehearsalFiles(ctx, disk, w, h)
	}
	s, err := d.Spare(ctx, l.Launch, id)
	if err != nil {
		return machineSpare{}, err
	}
	if err := d.rehearseIn(ctx, l, s); err != nil {
		s.End(ctx)
		return machineSpare{}, err
	}
	return machineSpare{s}, nil
}

// rehearsalFiles opens what is behind the disks of a machine that rehearses.
func (d *Driver) rehearsalFiles(ctx context.Context, disk string, w *virtual.Wires, h *virtual.Handed) error {
	if err := rehearsalTemplate(w, h); err != nil {
		return err
	}
	private, err := d.o.Pool.Hold(ctx, disk)
	if err != nil {
		return err
	}
	w.Disk = h.Add(private)
	return nil
}

// rehearsalTemplate opens what is behind the template's disk.
func rehearsalTemplate(w *virtual.Wires, h *virtual.Handed) error {
	fd, err := unix.MemfdCreate("strata-rehearsal", unix.MFD_CLOEXEC)
	if err != nil {
		return fault.Internalf("make the template of a rehearsal: %w", err)
	}
	whole := os.NewFile(uintptr(fd), "rehearsal")
	defer whole.Close()
	if _, err := whole.Write(rehearsalImage); err != nil {
		return fault.Internalf("make the template of a rehearsal: %w", err)
	}
	template, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd)) // QEMU takes a descriptor only as it is to be used
	if err != nil {
		return fault.Internalf("make the template of a rehearsal: %w", err)
	}
	w.Template = h.Add(template)
	return nil
}

// rehearseIn has s go on from its saved system, do all once that a start does, and stand still.
func (d *Driver) rehearseIn(ctx context.Context, l *launch, s *virtual.Spare) error {
	q, err := qemu.Dial(ctx, s.Monitor())
	if err != nil {
		return err
	}
	defer q.Close()
	if err := warm.Restore(ctx, q, l.Saved, 0); err != nil {
		return err
	}
	r := l.Run
	if r.Network, err = virtual.Network(&rehearsalTap); err != nil {
		return err
	}
	if err := s.Rehearse(ctx, r); err != nil {
		return err
	}
	select { // as for a system that is saved
	case <-time.After(settleBefore):
	case <-ctx.Done():
		return fault.Busyf("a rehearsal: %w", ctx.Err())
	}
	return q.Execute(ctx, "stop", nil, nil)
}

// ready is a spare that l can go on in, or an image that it can be a copy of, which the caller
// closes; nil: there is none.
func (d *Driver) ready(l *launch, p stratum.Plan) (*machineSpare, image) {
	if l.Saved == nil {
		return nil, nil
	}
	c, err := d.classOf(l, p)
	if err != nil {
		return nil, nil
	}
	one, i := d.standby.take(c)
	if s, ok := one.(machineSpare); ok {
		return &s, nil
	}
	return nil, i
}

// become lets a spare go on as p's. After an error nothing of it is left.
func (d *Driver) become(ctx context.Context, p stratum.Plan, l *launch, o stratum.StartOptions, s *machineSpare) (*virtual.Live, error) {
	return s.Become(ctx, p, l.Launch, o, func(ctx context.Context, monitor string) error { return d.give(ctx, p, l, monitor) })
}

// startCopy starts l as a copy of i. Where that fails l is as it was, and the standby is told
// unless it is the plan's fault.
func (d *Driver) startCopy(ctx context.Context, p stratum.Plan, l *launch, o stratum.StartOptions, i image) (*virtual.Live, error) {
	c, err := d.classOf(l, p)
	if err != nil {
		return nil, err
	}
	resume, cameUp := l.Resume, false
	l.copied(i)
	l.Resume = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, greetPatience)
		defer cancel()
		err := d.give(ctx, p, l, d.Held.Path(p.ID, virtual.MonitorSocket))
		cameUp = err == nil
		return err
	}
	l.Notes.Boot.Copied = true
	live, err := d.Attempt(ctx, p, l.Launch, o)
	if err == nil {
		d.standby.tell(c.Key, true, true)
	}
	if err == nil || ctx.Err() != nil || virtual.Blames(err) {
		return live, err
	}
	l.Copy, l.Disks, l.Resume, l.Machine.OwnEntropy, l.Notes.Boot.Copied = nil, nil, resume, false, false
	d.standby.tell(c.Key, false, cameUp)
	return nil, err
}

// give puts p's disks into a machine that stands still, and lets it go on.
func (d *Driver) give(ctx context.Context, p stratum.Plan, l *launch, monitor string) error {
	ctx, cancel := context.WithTimeout(ctx, d.Patience())
	defer cancel()
	template, err := os.Open(p.Whole.Path)
	if err != nil {
		return fault.Internalf("open the template's image: %w", err)
	}
	defer template.Close()
	disk, err := d.OpenDisk(ctx, p.Disk)
	if err != nil {
		return err
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		return fault.Internalf("look at the private disk: %w", err)
	}
	size := info.Size()
	if size == blankDisk {
		size = 0
	}
	q, err := qemu.Dial(ctx, monitor)
	if err != nil {
		return err
	}
	defer q.Close()
	// It has mapped the host's files by their names.
	if l.Copy != nil && !l.Copy.Current() {
		return fault.Conflictf("what QEMU is made of has been exchanged")
	}
	return warm.Give(ctx, q, warm.Disks{Template: template, Disk: disk, Size: size, Ring: l.QEMU.Ring})
}

func (d *Driver) standbyDir() string { return filepath.Join(d.o.Places.State, "standby") }

// openStandby begins to keep spares, where that is asked for.
func (d *Driver) openStandby() error {
	if d.o.Standby < 0 || d.o.Standby > MaxStandby {
		return fault.Invalidf("%d are no number of spare machines to keep", d.o.Standby).At("standby").Help("0 to %d", MaxStandby)
	}
	d.standby = newStandby(d.o.Standby, d.Log)
	d.standby.make, d.standby.write, d.standby.valid = d.spareOf, d.imageOf, d.current
	if err := os.RemoveAll(d.standbyDir()); err != nil {
		return fault.Internalf("empty the folder of rehearsals: %w", err)
	}
	if err := os.MkdirAll(d.standbyDir(), 0o700); err != nil {
		return fault.Internalf("make the folder of rehearsals: %w", err)
	}
	d.background.Go(func() { d.standby.run(d.Life) })
	return nil
}

// Standby tells how many spares and images there are, and how many bytes of memory they hold.
func (d *Driver) Standby() (spares, images int, bytes int64) { return d.standby.size() }
