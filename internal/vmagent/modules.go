package vmagent

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// moduleOrder names the files of modules in the order in which they are loaded, one path
// a line, and after a space what they are loaded with.
const moduleOrder = "/modules/order"

// maxFaults bounds what is told of modules.
const maxFaults = 64

// loadModules loads every module that the initramfs has, and returns what could
// not be loaded: somebody may miss it later, and most systems miss none of it.
// The files are removed, because their memory would stay in use until the end.
func loadModules() (faults []string) {
	order, err := os.ReadFile(moduleOrder)
	if err != nil {
		return []string{moduleOrder + ": " + root.Words(err)}
	}
	for line := range strings.Lines(string(order)) {
		path, parameters, _ := strings.Cut(strings.TrimSpace(line), " ")
		if path == "" {
			continue
		}
		if err := loadModule(path, parameters); err != nil && len(faults) < maxFaults {
			faults = append(faults, moduleName(path)+": "+root.Words(err))
		}
		_ = unix.Unlink(path) // tolerated: it only costs memory
	}
	return faults
}

func loadModule(path, parameters string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.FinitModule(fd, parameters, 0); err != nil && err != unix.EEXIST {
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
