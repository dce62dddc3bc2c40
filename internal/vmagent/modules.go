package vmagent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// Where the initramfs has modules. Order and later are lists of files there in the order of
// loading: one path a line, and after a space what it is loaded with. What is in
// later no program waits for.
const (
	modulePlace = "/modules"
	moduleOrder = modulePlace + "/order"
	moduleLater = modulePlace + "/later"
)

// maxFaults bounds what is told of modules.
const maxFaults = 64

// laterPause is how long the first program has the system to itself.
const laterPause = 300 * time.Millisecond

// module is one line of a list.
type module struct{ path, parameters string }

func readModules(list string) (all []module, err error) {
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if path, parameters, _ := strings.Cut(strings.TrimSpace(line), " "); path != "" {
			all = append(all, module{path, parameters})
		}
	}
	return all, nil
}

// rest are the modules that are still to be loaded, and the files of those that are.
type rest struct {
	once   sync.Once
	dir    int // their folder, which cannot be reached by name from an environment's inside
	later  []module
	loaded []module
}

// loadModules loads the modules of the initramfs, and returns what could not be
// loaded: somebody may miss it later, and most systems miss none of it. It calls each after
// each of them.
func (a *agent) loadModules(each func()) (faults []string) {
	var err error
	if a.rest.dir, err = unix.Open(modulePlace, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return []string{modulePlace + ": " + root.Words(err)}
	}
	now, err := readModules(moduleOrder)
	if err != nil {
		return []string{moduleOrder + ": " + root.Words(err)}
	}
	faults = a.rest.load(now, each)
	if a.rest.later, err = readModules(moduleLater); err != nil && !errors.Is(err, unix.ENOENT) {
		faults = append(faults, moduleLater+": "+root.Words(err))
	}
	if told(spec.ToSave) {
		faults = append(faults, a.rest.finish()...)
	}
	return faults
}

// loadRest loads what no program waits for. It may be called more than once, and
// at any time after loadModules.
func (a *agent) loadRest() {
	faults := a.rest.finish()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults = append(a.faults, faults...)
}

// finish loads the rest and removes the files of all, because their memory would stay in
// use until the end. Only the first call does anything.
func (r *rest) finish() (faults []string) {
	r.once.Do(func() {
		if r.dir < 0 {
			return
		}
		faults = r.load(r.later, func() {})
		for _, m := range r.loaded {
			_ = unix.Unlinkat(r.dir, filepath.Base(m.path), 0) // tolerated: it only costs memory
		}
		unix.Close(r.dir)
	})
	return faults
}

func (r *rest) load(all []module, each func()) (faults []string) {
	for _, m := range all {
		if err := r.loadModule(m); err != nil && len(faults) < maxFaults {
			faults = append(faults, moduleName(m.path)+": "+root.Words(err))
		}
		each()
	}
	r.loaded = append(r.loaded, all...)
	return faults
}

func (r *rest) loadModule(m module) error {
	fd, err := unix.Openat(r.dir, filepath.Base(m.path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FinitModule(fd, m.parameters, 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// moduleName turns the path of a module's file into what the kernel calls it. The
// file may begin with its place in the order, as in 003-virtio_blk.ko.
func moduleName(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if rest, ok := strings.CutPrefix(strings.TrimLeft(name, "0123456789"), "-"); ok {
		name = rest
	}
	return strings.ReplaceAll(strings.TrimSuffix(name, ".ko"), "-", "_")
}

// loaded fails where one of the modules that a run asks for could not be loaded.
func (a *agent) loaded(names []string) error {
	for _, name := range names {
		for _, f := range a.faults {
			if why, ok := strings.CutPrefix(f, name+": "); ok {
				return root.Fail(root.Unable, "modules", "the kernel does not load module "+name+": "+why)
			}
		}
	}
	return nil
}

// blame adds to err what was said of modules, where something is missing that
// one of them may have been to bring.
func (a *agent) blame(err error) error {
	if err == nil || len(a.faults) == 0 {
		return err
	}
	f := *root.FailureOf(err)
	f.Message += " (modules that could not be loaded: " + strings.Join(a.faults, ", ") + ")"
	return root.Fail(f.Kind, f.Field, f.Message)
}
