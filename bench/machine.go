package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// firstWord is what the first program says of which it is told how long it took to come.
const firstWord = "the-first-program-runs"

// hearing keeps what a command says, and notes when the first word came.
type hearing struct {
	strings.Builder
	begun time.Time
	first time.Duration
}

func (h *hearing) Write(p []byte) (int, error) {
	n, err := h.Builder.Write(p)
	if h.first == 0 && strings.Contains(h.String(), firstWord) {
		h.first = time.Since(h.begun)
	}
	return n, err
}

// machine compares a bare QEMU of the same hardware: firmware and kernel until the first
// program says something, and whole commands, with the power off at their end.
func (e *env) machine() error {
	b, err := e.board()
	if err != nil {
		return err
	}
	if err := b.check(); err != nil {
		return err
	}
	says, err := b.booted(true, "/bin/busybox", "echo", firstWord)
	if err != nil {
		return err
	}
	err = compare(e.runs, "ms",
		side{"strata run --stratum machine, to the first program's word", func() (float64, error) {
			heard := hearing{begun: time.Now()}
			cmd := e.strata("run", "--rm", "--stratum", "machine", "busybox", "echo", firstWord)
			cmd.Stdout = &heard
			err := cmd.Run()
			if err == nil && heard.first == 0 {
				err = fmt.Errorf("it says %q", heard.String())
			}
			return milliseconds(heard.first), err
		}},
		side{"bare QEMU, the same board, likewise", func() (float64, error) {
			r, err := b.run(says)
			if err == nil && r.first == 0 {
				err = fmt.Errorf("it says %q", b.last)
			}
			return r.first, err
		}})
	if err != nil {
		return err
	}
	nothing, err := b.booted(false, "/bin/true")
	if err != nil {
		return err
	}
	return compareBoth(e.runs,
		clocked{"strata run --rm --stratum machine", func() (float64, float64, error) {
			return e.withDaemon("run", "--rm", "--stratum", "machine", "busybox", "true")
		}},
		clocked{"bare QEMU, the same board", func() (float64, float64, error) {
			r, err := b.run(nothing)
			return r.took, r.used, err
		}})
}

// machineKernel sees to it that strata has a kernel with drivers for hardware.
func (e *env) machineKernel() error {
	if e.strata("kernel", "show", "machines").Run() == nil {
		return nil
	}
	if out, err := e.strata("kernel", "add", "--name", "machines", e.machineSource).CombinedOutput(); err != nil {
		return fmt.Errorf("strata kernel add: %w: %s", err, out)
	}
	return nil
}

// beginAt starts an environment that does nothing, at a stratum.
func (e *env) beginAt(stratum, name string, flags ...string) error {
	args := append([]string{"run", "-d", "--name", name, "--stratum", stratum}, flags...)
	if out, err := e.strata(append(args, "busybox", "sleep", "100000")...).CombinedOutput(); err != nil {
		return fmt.Errorf("start a %s: %w: %s", stratum, err, out)
	}
	return nil
}

// clocked is a side of which wall and processor time are told, in milliseconds.
type clocked struct {
	name string
	run  func() (took, used float64, err error)
}

// compareBoth is compare by both times at once.
func compareBoth(runs int, sides ...clocked) error {
	names := make([]string, len(sides))
	took, used := make([][]float64, len(sides)), make([][]float64, len(sides))
	for i := range runs + 1 {
		for s, side := range sides {
			wall, processor, err := side.run()
			if err != nil {
				return fmt.Errorf("%s: %w", side.name, err)
			}
			time.Sleep(aftermath)
			names[s] = side.name
			if i > 0 { // the first round warms up
				took[s], used[s] = append(took[s], wall), append(used[s], processor)
			}
		}
	}
	report("ms", names, took)
	fmt.Println("  the same by processor time")
	report("ms", names, used)
	return nil
}

// withDaemon runs a command of the CLI and returns its wall time and the processor
// time of all: command, daemon, and what ran for it below the daemon and has ended.
func (e *env) withDaemon(args ...string) (took, used float64, err error) {
	before, err := withChildren(e.daemon.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	cmd := e.strata(args...)
	if took, err = timed(cmd); err != nil {
		return 0, 0, err
	}
	time.Sleep(aftermath) // until the keeper is no more, and counted
	after, err := withChildren(e.daemon.Process.Pid)
	return took, milliseconds(after - before + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()), err
}

// machineDisk compares the private disk with that of the bare machine: one after the
// other, and here and there.
func (e *env) machineDisk() error {
	b, err := e.board()
	if err != nil {
		return err
	}
	self, err := e.self()
	if err != nil {
		return err
	}
	if err := e.beginAt("machine", "machine-disk"); err != nil {
		return err
	}
	defer e.strata("rm", "-f", "machine-disk").Run()
	if out, err := e.strata("cp", self, "machine-disk:/bench").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, what := range []struct{ name, unit string }{{"write", "MB/s"}, {"read", "MB/s"}, {"read-random", "1/s"}, {"write-random", "1/s"}, {"fsync", "1/s"}} {
		boot, err := b.booted(true, "/bench", "inside", what.name, "/")
		if err != nil {
			return err
		}
		err = compare(min(e.runs, 5), what.unit,
			side{what.name + " in a machine", func() (float64, error) {
				return figure(e.strata("exec", "machine-disk", "/bench", "inside", what.name, "/"))
			}},
			side{what.name + " in bare QEMU", func() (float64, error) {
				r, err := b.run(boot)
				if err != nil {
					return 0, err
				}
				return number(r.said)
			}})
		if err != nil {
			return err
		}
		if err := os.Remove(boot); err != nil {
			return err
		}
	}
	return nil
}

// filled is how much of a machine's memory is in use, by bytes that nothing can be made
// smaller of, when it is suspended. Unit: MiB.
const filled = 400

// machineSuspends says what suspending a machine of 512 MiB takes, and going on, beside
// writing and reading a file of that length.
func (e *env) machineSuspends() error {
	if err := e.machineKernel(); err != nil {
		return err
	}
	self, err := e.self()
	if err != nil {
		return err
	}
	if err := e.beginAt("machine", "suspended", "--memory", "512M"); err != nil {
		return err
	}
	defer e.strata("rm", "-f", "suspended").Run()
	if out, err := e.strata("cp", self, "suspended:/bench").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	load := e.strata("exec", "suspended", "sh", "-c", fmt.Sprintf("/bench inside fill %d >/filled 2>&1 & while ! grep -q . /filled; do sleep 0.1; done; cat /filled", filled))
	if out, err := load.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != fmt.Sprint(filled) {
		return fmt.Errorf("fill a machine's memory: %v: %s", err, out)
	}
	names := []string{"suspend", "go on, in a fresh process", "the same file, written and read"}
	figures := make([][]float64, len(names))
	var size int64
	for i := range 6 {
		took, err := timed(e.strata("suspend", "suspended"))
		if err != nil {
			return err
		}
		if size, err = e.savedSize(); err != nil {
			return err
		}
		again, err := timed(e.strata("resume", "suspended"))
		if err != nil {
			return err
		}
		plain, err := e.writeAndRead(size)
		if err != nil {
			return err
		}
		if i > 0 {
			figures[0], figures[1], figures[2] = append(figures[0], took), append(figures[1], again), append(figures[2], plain)
		}
	}
	fmt.Printf("  512 MiB, %d of them filled; the file has %d MiB\n", filled, size>>20)
	for i := range names { // they do not compare one by one
		report("ms", names[i:i+1], figures[i:i+1])
	}
	fmt.Printf("  suspending and going on, less the file: %.0f ms\n", median(figures[0])+median(figures[1])-median(figures[2]))
	return nil
}

// savedSize is how long the file of the one suspended system is.
func (e *env) savedSize() (int64, error) {
	found, err := filepath.Glob(filepath.Join(e.root, "state", "environments", "*", "*", "state"))
	if err != nil || len(found) != 1 {
		return 0, fmt.Errorf("where is the suspended system? %v %w", found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// writeAndRead takes the time that the disk alone takes with such a file: writing it
// through, and reading it from the page cache.
func (e *env) writeAndRead(size int64) (float64, error) {
	path := filepath.Join(e.root, "state", "bench-file")
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer f.Close()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 7)
	}
	begun := time.Now()
	for at := int64(0); at < size; at += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	for at := int64(0); at < size; at += int64(len(block)) {
		if _, err := f.ReadAt(block, at); err != nil {
			return 0, err
		}
	}
	return milliseconds(time.Since(begun)), nil
}
