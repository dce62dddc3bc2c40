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
	Cache     int64 // page cache that is charged to it; -1: not to be known
	Shared    int64 // page cache of its template's files, which all that are made of it share; -1: not to be known
}

// Weigh reads what the processes top and all below it hold, what the kernel holds for
// the control group of inside, and what it caches of files, the template's. root is "/".
// Kinds: Unable.
func Weigh(root string, top, inside int, files []string) (Held, error) {
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
	h.Kernel, h.Cache = charged(root, inside)
	if h.Shared, err = Cached(files...); err != nil {
		h.Shared = -1
	}
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

// group is the folder of an environment's control group of memory, of which the process's own is
// a part. v1 tells which version's names its files have. Source: cgroups(7).
func group(root string, pid int) (folder string, v1 bool) {
	data, _ := os.ReadFile(filepath.Join(root, "proc", strconv.Itoa(pid), "cgroup"))
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		name := whole(filepath.Clean("/" + f[2]))
		if f[1] == "memory" {
			return filepath.Join(root, "sys/fs/cgroup/memory", name), true
		}
		if f[0] == "0" {
			folder = filepath.Join(root, "sys/fs/cgroup", name)
		}
	}
	return folder, false
}

// whole is the part of a main program's group that is the environment's (package resource).
func whole(group string) string {
	return strings.TrimSuffix(strings.TrimSuffix(group, "/init"), "/payload")
}

// charged reads what the kernel charges to a process's control group: its own memory for it (0 where
// that is not told), and page cache of files (-1). Memory that processes share is no file's. Sources:
// the kernel's cgroup-v2.rst, memory.stat; cgroup-v1/memory.rst, memory.stat and memory.kmem.usage_in_bytes.
func charged(root string, pid int) (kernel, cache int64) {
	folder, v1 := group(root, pid)
	stat := map[string]int64{}
	text, _ := os.ReadFile(filepath.Join(folder, "memory.stat"))
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				stat[f[0]] = n
			}
		}
	}
	file, shared := "file", "shmem"
	if kernel = stat["kernel"]; v1 {
		text, _ := os.ReadFile(filepath.Join(folder, "memory.kmem.usage_in_bytes"))
		kernel, _ = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		file, shared = "total_cache", "total_shmem"
	}
	if _, told := stat[file]; !told {
		return kernel, -1
	}
	return kernel, max(0, stat[file]-stat[shared])
}
