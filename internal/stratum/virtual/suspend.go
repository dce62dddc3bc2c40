package virtual

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/unit"
)

// savePatience bounds the writing of a whole system: a disk that takes 10 MB a second
// has written 6 GB then.
const savePatience = 10 * time.Minute

// deviceShare is room for what is written besides memory. Unit: bytes. A screen's own
// memory is 16 MiB, all else less than one. pageShare is the part of a page that each one
// takes for its address: 8 bytes of 4 KiB. Source: QEMU, migration/ram.c, save_page_header.
const (
	deviceShare = 32 * unit.MiB
	pageShare   = 512
)

// Suspend implements stratum.Suspender.
func (l *Live) Suspend(ctx context.Context, dir string) (err error) {
	switch {
	case l.notes.Volumes > 0:
		return fault.Unablef("a system with volumes cannot be suspended: QEMU saves no virtiofs").At("volumes").Help("stop it, or hold it still: strata pause")
	case l.noted().Plugged > 0:
		return fault.Unablef("%s of memory were plugged in since it was started, and a machine like that cannot be made again", l.noted().Plugged).At("resources.memory").Help("start it again first: it has its memory in one piece then")
	case l.notes.Form == "":
		return fault.Unablef("it was started by a strata that kept no note of its hardware").Help("start it again first")
	}
	if k := l.notes.Boot.Kernel; k != "" { // what runs does not keep its kernel from being removed
		if _, err := l.d.o.Kernels.Get(k); fault.Is(err, fault.Missing) {
			return fault.Unablef("its kernel %s was removed, without which it could not go on", k).Help("add that again, or start it again first: it boots another one then")
		}
	}
	if err := l.counted(ctx); err != nil { // the next machine has as many
		return err
	}
	if err := room(filepath.Dir(dir), l.notes.Boot.Memory+l.notes.Boot.Memory/pageShare+deviceShare); err != nil {
		return err
	}
	part := dir + ".new"
	if err := errors.Join(os.RemoveAll(part), os.Mkdir(part, 0o700)); err != nil {
		return fault.Internalf("make the folder of a suspended system: %w", err)
	}
	defer os.RemoveAll(part)
	was := l.Paused()
	// The agent waits for its next host when it goes on.
	l.agent.rest(was)
	l.setPaused(true)
	if err := l.hold(ctx); err != nil {
		l.setPaused(was)
		return err
	}
	defer func() {
		if err == nil || was {
			return
		}
		select {
		case <-l.Over(): // nothing is left to go on
		default:
			err = errors.Join(err, l.Resume(context.WithoutCancel(ctx)))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, savePatience)
	defer cancel()
	size, err := l.writeAll(ctx, filepath.Join(part, stateFile))
	if err != nil {
		return fault.Wrap(err, "write the system down")
	}
	s := Saved{Version: savedVersion, Notes: l.noted(), TSC: qemu.TSC(), Size: size, At: time.Now()}
	if s.Disk, err = stampOf(l.notes.Disk); err != nil {
		return err
	}
	if err := s.write(part); err != nil {
		return err
	}
	if err := os.Rename(part, dir); err != nil {
		return fault.Internalf("keep a suspended system: %w", err)
	}
	l.killed.Store(true)
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

// writeAll writes the whole machine to the new file path, and returns how long it is.
func (l *Live) writeAll(ctx context.Context, path string) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return 0, fault.Internalf("make the file of a suspended system: %w", err)
	}
	defer f.Close()
	if err := l.Monitor(ctx, func(q *qemu.QMP) error { return q.SaveAll(ctx, f) }); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, fault.Unablef("write a suspended system out: %w", err)
	}
	if disk, err := os.Open(l.notes.Disk); err == nil {
		err = disk.Sync()
		disk.Close()
		if err != nil {
			return 0, fault.Unablef("write the private disk out: %w", err)
		}
	}
	info, err := f.Stat()
	if err != nil {
		return 0, fault.Internalf("look at a suspended system: %w", err)
	}
	return info.Size(), nil
}

// setPaused notes that the processors stand still.
func (l *Live) setPaused(still bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = still
}

// rest ends the session, so that the agent waits for the next. One that stands still
// answers nobody.
func (a *agent) rest(still bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.first != nil {
		if still {
			a.first.giveUp()
		}
		a.client, a.first = <-a.first.answered, nil
	}
	a.leave()
}

// room makes sure that so much can be written below dir. Kinds: Unable.
func room(dir string, need unit.Size) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fault.Internalf("look for room in %s: %w", dir, err)
	}
	if free := unit.Size(st.Bavail) * unit.Size(st.Bsize); free < need {
		return fault.Unablef("the host's disk has no room for its memory: %s are free, and up to %s are written", free, need).
			At("disk").Help("make room in %s", dir)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
