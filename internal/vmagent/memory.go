package vmagent

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
)

// memoryPlace is where the kernel lists its memory in blocks of one size, beneath sysfs.
// Source: Documentation/admin-guide/mm/memory-hotplug.rst.
const memoryPlace = "devices/system/memory"

// populate has all memory used, of which there are whole bytes, some just plugged in.
func populate(whole int64) error {
	if whole == 0 {
		return nil
	}
	return untilUsed("memory", func(sys int) (bool, error) {
		used, block, err := useMemory(sys)
		all := block > 0 && used/block >= whole/block
		if err != nil {
			return all, root.Wrap(err, "use the memory that was plugged in")
		}
		return all, root.Fail("unable", "memory", "the kernel inside uses "+strconv.FormatInt(used>>20, 10)+"M of "+strconv.FormatInt(whole>>20, 10)+"M of memory")
	})
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
