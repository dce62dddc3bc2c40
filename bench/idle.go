package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// idle starts many environments that do nothing and says what each costs.
func (e *env) idle() error {
	before := e.cost()
	if err := e.crowd(); err != nil {
		return err
	}
	time.Sleep(3 * time.Second) // what they needed only to start is given back
	after := e.cost()
	n := float64(e.many)
	fmt.Printf("  keepers   %8.3f MiB each (PSS)\n", after.keepers/n)
	fmt.Printf("  agents    %8.3f MiB each (PSS)\n", after.agents/n)
	fmt.Printf("  programs  %8.3f MiB each (PSS; their own, not strata's)\n", after.programs/n)
	fmt.Printf("  strata adds %6.3f MiB each: keeper and agent\n", (after.keepers+after.agents)/n)
	fmt.Printf("  kernel    %8.3f MiB each (slab, page tables, stacks of all the above)\n", (after.kernel-before.kernel)/n)
	fmt.Printf("  daemon    %8.1f MiB (PSS), %.1f with none\n", after.daemon, before.daemon)
	return compare(e.runs, "ms",
		side{"strata ls, whole command", func() (float64, error) { return timed(e.strata("ls")) }},
		side{"strata version, whole command", func() (float64, error) { return timed(e.strata("version")) }})
}

// crowd starts as many environments as are asked for, unless they run already.
func (e *env) crowd() error {
	if e.crowded {
		return nil
	}
	begun := time.Now()
	jobs := make(chan int)
	errs := make(chan error, e.many)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for i := range jobs {
				if out, err := e.strata("run", "-d", "--name", fmt.Sprintf("idle-%d", i), "busybox", "sleep", "100000").CombinedOutput(); err != nil {
					errs <- fmt.Errorf("%w: %s", err, out)
				}
			}
		})
	}
	for i := range e.many {
		jobs <- i
	}
	close(jobs)
	wait.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return err
	}
	fmt.Printf("  started %d in %.1f s\n", e.many, time.Since(begun).Seconds())
	e.crowded = true
	return nil
}

// cost is memory in MiB.
type cost struct{ keepers, agents, programs, daemon, kernel float64 }

func (e *env) cost() (c cost) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		pss := pssOf(pid)
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		name, _, _ := bytes.Cut(line, []byte{0})
		switch program := filepath.Base(string(name)); {
		case pid == e.daemon.Process.Pid:
			c.daemon = pss
		case program == "strata-keeper":
			c.keepers += pss
		case program == "strata-agent":
			c.agents += pss
		case program == "sleep" && bytes.Contains(line, []byte("100000")):
			c.programs += pss
		}
	}
	data, _ := os.ReadFile("/proc/meminfo")
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) >= 2 && (f[0] == "Slab:" || f[0] == "PageTables:" || f[0] == "KernelStack:" || f[0] == "Percpu:") {
			kb, _ := strconv.ParseFloat(f[1], 64)
			c.kernel += kb / 1024
		}
	}
	return c
}

func pssOf(pid int) float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for _, line := range strings.Split(string(data), "\n") {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "Pss:" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb / 1024
		}
	}
	return 0
}
