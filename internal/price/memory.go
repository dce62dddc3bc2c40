package price

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// Held is memory that something holds. Unit: bytes.
type Held struct {
	Processes int64 // the proportional set size of all its processes
	Kernel    int64 // of the kernel for it; 0: not to be known
}

// Weigh reads what the processes top and all below it hold, and what the kernel
// holds for the control group of inside. root is "/". Kinds: Unable.
func Weigh(root string, top, inside int) (Held, error) {
	pids, err := below(filepath.Join(root, "proc"), top)
	if err != nil {
		return Held{}, fault.Unablef("list processes: %w", err)
	}
	var h Held
	for _, pid := range pids {
		h.Processes += proportional(filepath.Join(root, "proc", strconv.Itoa(pid), "smaps_rollup"))
	}
	if h.Processes == 0 {
		return h, fault.Unablef("the memory of process %d cannot be read", top)
	}
	h.Kernel = kernelMemory(root, inside)
	return h, nil
}

// below lists a process and all that descend from it.
func below(proc string, top int) ([]int, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, ok := parentOf(filepath.Join(proc, e.Name(), "stat")); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	all := []int{top}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
		delete(children, all[i]) // a pid that was used twice meanwhile makes no circle
	}
	return all, nil
}

// parentOf reads the fourth field. The second, a name of the process's choice, may
// hold anything. Source: proc_pid_stat(5).
func parentOf(path string) (int, bool) {
	data, err := os.ReadFile(path)
	i := bytes.LastIndexByte(data, ')')
	if err != nil || i < 0 {
		return 0, false
	}
	fields := strings.Fields(string(data[i+1:]))
	if len(fields) < 2 {
		return 0, false
	}
	n, err := strconv.Atoi(fields[1])
	return n, err == nil
}

// proportional reads the line "Pss:" in bytes; what has ended holds nothing.
// Source: proc_pid_smaps(5).
func proportional(path string) int64 {
	data, _ := os.ReadFile(path)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			if f := strings.Fields(rest); len(f) == 2 {
				n, _ := strconv.ParseInt(f[0], 10, 64)
				return n << 10
			}
		}
	}
	return 0
}

// kernelMemory reads what the kernel charges to a process's control group. Sources: the kernel's
// cgroup-v2.rst, memory.stat "kernel"; cgroup-v1/memory.rst, memory.kmem.usage_in_bytes.
func kernelMemory(root string, pid int) int64 {
	data, _ := os.ReadFile(filepath.Join(root, "proc", strconv.Itoa(pid), "cgroup"))
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		group := strings.TrimSuffix(filepath.Clean("/"+f[2]), "/payload") // all of it, not the part of the main program
		if f[1] == "memory" {
			text, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup/memory", group, "memory.kmem.usage_in_bytes"))
			if n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil {
				return n
			}
		}
		if f[0] == "0" {
			text, _ := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", group, "memory.stat"))
			for stat := range strings.Lines(string(text)) {
				if rest, ok := strings.CutPrefix(stat, "kernel "); ok {
					n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
					return n
				}
			}
		}
	}
	return 0
}
