package guest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/warm"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
	"github.com/strata-project/strata/internal/undo"
	"github.com/strata-project/strata/internal/vmagent/control"
)

// memoryPlace is where QEMU finds the descriptor of its memory.
func memoryPlace(fd int) string { return confine.FilesPlace + "/" + strconv.Itoa(fd) }

// warm has l go on from a saved system where there is one. Where there could be
// one it returns what makes it in the background, for those that come after; that
// boots a machine as well, so it is for when l has started.
func (d *Driver) warm(ctx context.Context, l *launch, p stratum.Plan) (save func()) {
	b := &l.Notes.Boot
	switch {
	case p.Cold:
		b.Cold = "a cold boot was asked for"
		return nil
	case p.Resources.HugePages != 0:
		b.Cold = "a saved system's memory does not lie in huge pages"
		return nil
	case p.Resources.Reclaim == api.ReclaimIdle:
		b.Cold = "a system that was saved has no balloon, by which it is to give memory back"
		return nil
	case len(p.Volumes) > 0:
		b.Cold = "a system with volumes cannot be saved"
		return nil
	}
	key, err := warm.KeyOf(l.QEMU, l.Machine, l.Kernel.ID, l.Image.Digest)
	if err == nil {
		l.key = key
		l.Saved, err = d.saved.Get(ctx, key)
	}
	if err != nil {
		b.Cold = "there was no saved system to go on from yet"
		like := *l
		common := *l.Launch
		like.Launch, common.Hardware = &common, &like
		return func() { d.prepareSaved(key, &like, p) }
	}
	b.Warm, l.Notes.Fixed = true, true
	l.Resume = func(ctx context.Context) error { return d.resume(ctx, p, l) }
	l.Machine.Incoming, l.Machine.Kernel, l.Machine.Initrd = true, "", ""
	return nil
}

// prepareSaved has a system like l's saved in the background, and one that waits written down.
func (d *Driver) prepareSaved(key warm.Key, l *launch, p stratum.Plan) {
	plan := rehearsalPlan(p) // nothing of an environment's is kept

	d.saved.Make(key, func(ctx context.Context, memory, state *os.File) error {
		s, err := d.source(ctx, l, memory)
		if err != nil {
			return err
		}
		return errors.Join(s.save(ctx, state), s.close())
	}, func() {
		saved, err := d.saved.Get(d.Life, key)
		if err != nil {
			return
		}
		defer saved.Close()
		like := *l
		like.Saved = saved
		if c, err := d.classOf(&like, plan); err == nil {
			d.standby.note(c)
		}
	})
}

// cold has l boot after all.
func (d *Driver) cold(ctx context.Context, l *launch, p stratum.Plan, why string) error {
	fresh, err := d.prepare(ctx, p)
	if err != nil {
		return err
	}
	fresh.Tap, fresh.Notes.Boot.Cold = l.Tap, why
	// l goes on being the launch that others know.
	*l.Launch, l.Machine, l.Saved = *fresh.Launch, fresh.Machine, nil
	l.Hardware = l
	return nil
}

// resume lets a machine that waits for it go on from its saved system.
func (d *Driver) resume(ctx context.Context, p stratum.Plan, l *launch) error {
	ctx, cancel := context.WithTimeout(ctx, d.Patience())
	defer cancel()
	q, err := qemu.Dial(ctx, d.Held.Path(p.ID, virtual.MonitorSocket))
	if err != nil {
		return err
	}
	defer q.Close()
	disk, err := os.Stat(p.Disk)
	if err != nil {
		return fault.Internalf("look at the private disk: %w", err)
	}
	size := disk.Size()
	if size == blankDisk {
		size = 0
	}
	return warm.Restore(ctx, q, l.Saved, size)
}

// source is a machine that is booted to be saved.
type source struct {
	d    *Driver
	id   string
	user uint32 // of its own: what it writes becomes the memory of all that go on from it
	cmd  *exec.Cmd
	said qemu.Words
	back undo.Stack
}

// source boots a machine like l's in memory, with nothing behind its devices, and
// returns when its agent waits.
func (d *Driver) source(ctx context.Context, l *launch, memory *os.File) (_ *source, err error) {
	s := &source{d: d, id: place.SavingPrefix + place.Moment()}
	defer s.back.Unless(ctx, &err)
	d.background.Add(1)
	s.back.Push("note the end", func(context.Context) error { d.background.Done(); return nil })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.Life, cancel)()
	release, err := d.Held.Claim(s.id)
	if err != nil {
		return nil, err
	}
	s.back.Push("let go of the id", func(context.Context) error { release(); return nil })
	if s.user, err = d.MakeNobodys(ctx, s.id); err != nil {
		return nil, err
	}
	s.back.Push("remove the run folder", func(context.Context) error { return d.Held.Remove(s.id) })
	group, err := d.o.Resources.Create(ctx, s.id, virtual.HostLimits(l.Machine.Memory, 0), virtual.Devices(l.Notes.Boot.Accelerator), 0)
	if err != nil {
		return nil, err
	}
	s.back.Push("remove the control group", func(ctx context.Context) error {
		if err := group.Kill(ctx); err != nil {
			return err
		}
		return group.Remove(ctx)
	})
	var h virtual.Handed
	defer h.Close()
	w, err := d.blank(s.id, l, memory, &h)
	if err != nil {
		return nil, err
	}
	if err := s.run(l, group, w, &h); err != nil {
		return nil, err
	}
	s.back.Push("end QEMU", func(context.Context) error {
		_ = s.cmd.Process.Kill() // it may be over
		_ = s.cmd.Wait()         // its status says nothing
		return nil
	})
	h.Close()
	if err := s.wait(ctx, group); err != nil {
		return nil, fault.Wrap(err, "boot a system to be saved (QEMU says: %s)", &s.said)
	}
	return s, nil
}

// run starts QEMU without a keeper: nobody needs it longer than the daemon.
func (s *source) run(l *launch, group *resource.Group, w virtual.Wires, h *virtual.Handed) error {
	payload := l.Payload(s.user, l.Args(w), h)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fault.Internalf("open /dev/null: %w", err)
	}
	defer null.Close()
	s.cmd = &exec.Cmd{
		Path: s.d.Agent, Args: payload.Args, Env: []string{}, Dir: "/",
		ExtraFiles:  append([]*os.File{null}, h.Files...), // the first is in the place of the keeper's socket
		Stderr:      &s.said,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: confine.Namespaces, Setsid: true},
	}
	if cgroup, err := group.OpenUnified(); err == nil {
		defer cgroup.Close()
		s.cmd.SysProcAttr.UseCgroupFD, s.cmd.SysProcAttr.CgroupFD = true, int(cgroup.Fd())
	}
	if err := group.Run(s.cmd.Start); err != nil {
		return fault.Unablef("start QEMU: %w", err)
	}
	return nil
}

// wait meets the agent once, and leaves it waiting for the next host.
func (s *source) wait(ctx context.Context, group *resource.Group) error {
	ctx, cancel := virtual.Patient(ctx, s.d.Patience(), virtual.MemoryOf(group))
	defer cancel()
	c, err := control.Dial(ctx, s.d.Held.Path(s.id, virtual.ControlSocket))
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := c.Info(ctx)
	if err == nil && info.State != control.State_WAITING {
		err = fault.Internalf("the agent of a system that is to be saved does not wait")
	}
	return err
}

// save writes down the state of the machine, which goes on no more.
func (s *source) save(ctx context.Context, state *os.File) error {
	time.Sleep(settleBefore)
	q, err := qemu.Dial(ctx, s.d.Held.Path(s.id, virtual.MonitorSocket))
	if err != nil {
		return err
	}
	defer q.Close()
	return warm.Save(ctx, q, state)
}

// close ends the machine, and takes away what was made for it.
func (s *source) close() error { return s.back.Roll(context.Background()) }

// settleBefore is how long a system may go on after its agent has answered: until
// that waits for the next host, and the kernel has nothing to do any more.
const settleBefore = 300 * time.Millisecond

// The sizes of the blank disks of a machine that is to be saved. Unit: bytes. The
// private disk's is announced when it goes on. That of a device which cannot be
// written to is only read when its driver takes it up, so the template's is larger
// than any: its file system knows how large it is.
const (
	blankTemplate = 1 << 40
	blankDisk     = 10 << 30 // as most are: to be told of another takes the system 20 ms
)

// blankMemory is a file in memory with nothing in it.
func blankMemory(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("strata-blank", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fault.Internalf("make a blank disk: %w", err)
	}
	f := os.NewFile(uintptr(fd), "blank")
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fault.Internalf("make a blank disk: %w", err)
	}
	return f, nil
}

// blank opens all that a machine needs which has nothing behind its devices.
func (d *Driver) blank(id string, l *launch, memory *os.File, h *virtual.Handed) (w virtual.Wires, err error) {
	if err := d.AddAgent(h); err != nil {
		return w, err
	}
	for size, number := range map[int64]*int{blankTemplate: &w.Template, blankDisk: &w.Disk} {
		f, err := blankMemory(size)
		if err != nil {
			return w, err
		}
		if number == &w.Template { // QEMU takes a descriptor only as it is to be used
			whole := f
			f, err = os.Open("/proc/self/fd/" + strconv.Itoa(int(whole.Fd())))
			whole.Close()
			if err != nil {
				return w, fault.Internalf("make a blank disk: %w", err)
			}
		}
		*number = h.Add(f)
	}
	if err := d.Listen(id, &w, h); err != nil {
		return w, err
	}
	for _, number := range []*int{&w.Streams, &w.Console, &w.Events} {
		if _, err := h.Connected(number); err != nil {
			return w, err
		}
	}
	card, err := virtual.Unplugged()
	if err != nil {
		return w, err
	}
	w.Tap, w.MAC = h.Add(card), warm.SourceMAC
	own, err := virtual.Again(memory)
	if err != nil {
		return w, err
	}
	l.Machine.Name = "saved"
	l.Machine.Backing = qemu.Backing{File: memoryPlace(h.Add(own)), Shared: true}
	return w, nil
}
