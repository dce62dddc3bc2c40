package vmagent

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// memoryPlace is where the kernel lists its memory in blocks of one size, beneath sysfs.
// Source: Documentation/admin-guide/mm/memory-hotplug.rst.
const memoryPlace = "devices/system/memory"

// populatePatience is how long the kernel may take to find memory that was plugged in, and
// populateLook how often is looked.
const (
	populatePatience = 40 * time.Second
	populateLook     = 20 * time.Millisecond
)

// populate has all memory used, of which there are whole bytes, some just plugged in: the
// kernel finds it, and leaves it to others to use it.
func populate(whole int64) error {
	if whole == 0 {
		return nil
	}
	sys, err := root.Tree("sysfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return root.Wrap(err, "look at the memory")
	}
	defer unix.Close(sys)
	for end := time.Now().Add(populatePatience); ; time.Sleep(populateLook) {
		used, block, err := useMemory(sys)
		if block > 0 && used/block >= whole/block {
			return nil
		}
		if time.Now().After(end) {
			if err != nil {
				return root.Wrap(err, "use the memory that was plugged in")
			}
			return root.Fail("unable", "memory", "the kernel inside uses "+strconv.FormatInt(used>>20, 10)+"M of "+strconv.FormatInt(whole>>20, 10)+"M of memory")
		}
	}
}

// useMemory has every block used that the kernel lists beneath sys. It returns how many
// bytes are, how many one block has, and why another is not used.
func useMemory(sys int) (used, block int64, failed error) {
	fd, err := unix.Openat(sys, memoryPlace, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	dir := os.NewFile(uintptr(fd), memoryPlace)
	defer dir.Close()
	block, err = strconv.ParseInt(strings.TrimSpace(string(readAt(fd, "block_size_bytes"))), 16, 64)
	if err != nil {
		return 0, 0, err
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, block, err
	}
	for _, name := range names {
		file := name + "/state"
		is := strings.TrimSpace(string(readAt(fd, file)))
		if is == "offline" {
			if err := writeAt(fd, file, "online"); err != nil {
				failed = err
				continue
			}
			is = "online"
		}
		if is == "online" && strings.HasPrefix(name, "memory") {
			used += block
		}
	}
	return used, block, failed
}
