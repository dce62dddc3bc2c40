package vmagent

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// processorPlace is where the kernel lists processors, beneath sysfs. Source:
// Documentation/core-api/cpu_hotplug.rst.
const processorPlace = "devices/system/cpu"

// mostProcessors is what a board has at most. Source: QEMU, hw/i386/pc.c.
const mostProcessors = 255

// pluggedPatience is how long the kernel may take to find what was plugged in, and
// pluggedLook how often is looked.
const (
	pluggedPatience = 40 * time.Second
	pluggedLook     = 20 * time.Millisecond
)

// untilUsed calls use until that says that all is used that was plugged in: the kernel finds
// it, tells of it before it can be used, and leaves it to others to use it. use gets a sysfs of
// its own, since the environment's, which the agent may be in, is not to be written to. short
// is what it lacked when its time was over.
func untilUsed(what string, use func(sys int) (all bool, short error)) error {
	sys, err := root.Tree("sysfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return root.Wrap(err, "look at the "+what)
	}
	defer unix.Close(sys)
	for end := time.Now().Add(pluggedPatience); ; time.Sleep(pluggedLook) {
		all, short := use(sys)
		if all {
			return nil
		}
		if time.Now().After(end) {
			return short
		}
	}
}

// online has the first n processors used, and no other, of which the last may just have
// been plugged in.
func online(n int) error {
	if n == 0 {
		return nil
	}
	return untilUsed("processors", func(sys int) (bool, error) {
		dir, err := unix.Openat(sys, processorPlace, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, root.Wrap(err, "look at the processors")
		}
		defer unix.Close(dir)
		used, err := useProcessors(dir, n)
		if err != nil {
			return used == n, root.Wrap(err, "change which processors are used")
		}
		return used == n, root.Fail("unable", "cpus", "the kernel inside uses "+strconv.Itoa(used)+" of "+strconv.Itoa(n)+" processors")
	})
}

// useProcessors has the first n of those used that the kernel lists in dir, and no other.
// It returns how many are, and why another is not as it should be.
func useProcessors(dir, n int) (used int, failed error) {
	for i := range mostProcessors {
		file := "cpu" + strconv.Itoa(i) + "/online"
		is := strings.TrimSpace(string(readAt(dir, file)))
		if is == "" && i == 0 {
			is = "1" // always, where it has no such file
		}
		if is == "" {
			continue // it is not there
		}
		want := "0"
		if used < n {
			want = "1"
		}
		if is != want {
			if err := writeAt(dir, file, want); err != nil {
				failed = err
			} else {
				is = want
			}
		}
		if is == "1" {
			used++
		}
	}
	return used, failed
}
