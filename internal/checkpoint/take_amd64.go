package checkpoint

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/thread"
)

// Possible tells whether there are images for this processor.
const Possible = true

// Take writes down process pid, which the caller may trace and which stands still while that
// goes on. Kinds: Conflict where a descriptor cannot be written down, Unable where something else cannot.
func Take(pid int, o Options) (i *Image, err error) {
	// The tracer is a thread. What it traces when it ends goes on, or is its real parent's to bury.
	err = thread.Spare(func() (err error) {
		i, err = take(pid, o)
		return err
	})
	switch {
	case fault.Is(err, fault.Conflict):
		return nil, fault.Wrap(err, "write down process %d", pid)
	case err != nil:
		return nil, fault.Unablef("write down process %d: %w", pid, err)
	}
	return i, nil
}

func take(pid int, o Options) (_ *Image, err error) {
	p, err := stop(pid)
	if p != nil && p.memory != nil {
		defer p.release()
	}
	if err != nil {
		return nil, err
	}
	areas, err := p.areas()
	if err != nil {
		return nil, err
	}
	if p.calls, err = p.instruction(areas); err != nil {
		return nil, err
	}
	for _, t := range p.threads {
		if err := t.look(); err != nil {
			return nil, fmt.Errorf("look at thread %d: %w", t.tid, err)
		}
	}
	if err := p.timers(); err != nil {
		return nil, err
	}
	prog := &program{}
	if prog.base, err = place(areas); err != nil {
		return nil, err
	}
	table, err := p.descriptors(o, prog)
	if err != nil {
		return nil, err
	}
	filters, err := p.filters()
	if err != nil {
		return nil, err
	}
	i := &Image{}
	if i.File, err = memory(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			i.File.Close()
		}
	}()
	pagemap, err := os.Open(p.proc("pagemap"))
	if err != nil {
		return nil, err
	}
	defer pagemap.Close()
	w := writer{to: i.File, at: pageSize}
	for n := range areas {
		a := &areas[n]
		if a.kernels() {
			continue
		}
		if err := i.depend(p, a); err != nil {
			return nil, err
		}
		if a.shared || a.wiped {
			continue
		}
		if err := p.content(a, pagemap, &w); err != nil {
			return nil, err
		}
	}
	if err := p.compose(prog, areas, table, filters, o); err != nil {
		return nil, err
	}
	list, err := prog.list()
	if err != nil {
		return nil, err
	}
	if prog.size() > programRoom/2 {
		return nil, errors.New("there is too much to be said of it")
	}
	for _, part := range []struct {
		b  []byte
		at uint64
	}{{prog.header(w.at), 0}, {list, w.at}, {prog.data, w.at + listRoom}} {
		if _, err := i.File.WriteAt(part.b, int64(part.at)); err != nil {
			return nil, err
		}
	}
	if err := i.File.Truncate(int64(w.at + (prog.size()+pageSize-1)&^(pageSize-1))); err != nil {
		return nil, err
	}
	if _, err := unix.FcntlInt(i.File.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return nil, err
	}
	return i, nil
}

// memory makes the image's file. Before Linux 6.3 every such file may be executed.
func memory() (*os.File, error) {
	const executable = 0x10 // MFD_EXEC
	fd, err := unix.MemfdCreate("checkpoint", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|executable)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("checkpoint", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "checkpoint"), nil
}

// instruction finds one that makes a system call: the vdso has some.
func (p *traced) instruction(all []area) (uint64, error) {
	for _, a := range all {
		if a.path != "[vdso]" {
			continue
		}
		b := make([]byte, a.end-a.start)
		if _, err := p.memory.ReadAt(b, int64(a.start)); err != nil {
			return 0, err
		}
		if i := strings.Index(string(b), "\x0f\x05"); i >= 0 {
			return a.start + uint64(i), nil
		}
	}
	return 0, errors.New("it has no vdso")
}

// programRoom is how much of its addresses a process must have left for the program, which lies
// anywhere between lowest and highest: below what the kernel puts into a copy, and where nobody can
// guess it.
const (
	programRoom     = 16 << 20
	lowest, highest = 1 << 36, 0x500000000000
)

// place finds a place for the program at which the process has nothing.
func place(all []area) (uint64, error) {
	for range 64 {
		base := lowest + rand.Uint64N((highest-lowest)/pageSize)*pageSize
		free := true
		for _, a := range all {
			free = free && (a.end <= base || a.start >= base+programRoom)
		}
		if free {
			return base, nil
		}
	}
	return 0, errors.New("it has no room left")
}
