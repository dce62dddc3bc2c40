package bed

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// Left names everything on the host that belongs to this bed's root: mounts,
// loop devices, cgroups, links and processes. The daemon itself counts only
// once it was told to end.
func (b *Bed) Left() []string {
	var left []string
	left = append(left, b.leftMounts()...)
	left = append(left, b.leftLoops()...)
	left = append(left, b.leftGroups()...)
	left = append(left, b.leftLinks()...)
	left = append(left, b.leftProcesses()...)
	return left
}

func (b *Bed) leftMounts() (left []string) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	for _, line := range strings.Split(string(data), "\n") {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], b.Places.Root) {
			left = append(left, "mount "+fields[4])
		}
	}
	return left
}

func (b *Bed) leftLoops() (left []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(data), b.Places.Root) {
			left = append(left, "loop "+strings.TrimSpace(string(data)))
		}
	}
	return left
}

func (b *Bed) leftGroups() (left []string) {
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		groups, _ := filepath.Glob(pattern + b.Places.Name("strata"))
		for _, group := range groups {
			left = append(left, "cgroup "+group)
		}
	}
	return left
}

func (b *Bed) leftLinks() (left []string) {
	b.Host(func() {
		links, err := netlink.LinkList()
		if err != nil {
			left = append(left, err.Error())
		}
		for _, link := range links {
			name := link.Attrs().Name
			if b.guest && !strings.Contains(name, b.Places.Tag) {
				continue // the other root's
			}
			if name != "lo" && link.Type() != "ifb" {
				left = append(left, "link "+name)
			}
		}
	})
	return left
}

// leftProcesses finds what was started for this root by its working folder,
// open files or command line.
func (b *Bed) leftProcesses() (left []string) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(line, []byte(b.Places.Root)) {
			left = append(left, fmt.Sprintf("process %d %s", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
			continue
		}
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, b.Places.Root+"/") {
				left = append(left, fmt.Sprintf("process %d holds %s", pid, target))
				break
			}
		}
	}
	return left
}
