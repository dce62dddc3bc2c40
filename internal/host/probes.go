package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/qemu/virtiofs"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/seccomp"
	"github.com/strata-project/strata/internal/thread"
	"golang.org/x/sys/unix"
)

// row writes one probe.
func row(needed bool, name, how, lost, fix string, try func(context.Context) (string, error)) probe {
	return probe{Finding{Name: name, How: how, Lost: lost, Fix: fix, Needed: needed}, try}
}

// probes is the whole check, in the order in which it is shown.
func probes(verdict string) []probe {
	all := []probe{
		row(true, "root", "asked for the user id and read /proc/self/uid_map", "everything", "run it as root, outside of any container", root),
	}
	all = append(in(GroupProcess, all), in(GroupProcess, capabilities())...)
	all = append(all, in(GroupKernel, mechanisms())...)
	all = append(all, in(GroupKernel, extras(verdict))...)
	all = append(all, in(GroupPrograms, tools())...)
	return append(all, in(GroupNetwork, networking())...)
}

func in(group string, rows []probe) []probe {
	for i := range rows {
		rows[i].Group = group
	}
	return rows
}

func mechanisms() []probe {
	const build = "use a kernel built with "
	return []probe{
		row(true, "kernel version", "uname", "idmapped overlay layers", "use Linux 5.19 or later", kernel),
		row(true, "user namespaces", "cloned a process into one", "everything", "set sysctl user.max_user_namespaces above 0, and kernel.unprivileged_userns_clone=1 where there is one", userNamespace),
		row(true, "new mount API", "made a detached tmpfs with fsopen, fsconfig and fsmount, and cloned it with open_tree", "everything", "use Linux 5.2 or later", mountAPI),
		row(true, "idmapped mounts", "mapped a detached mount (tmpfs, erofs or where state is) by a user namespace", "environments with a range of user ids of their own", "use Linux 5.12 or later, with state on ext4, xfs or btrfs", idmapped),
		row(true, "overlay", "mounted one over a detached tmpfs and wrote to it, and where that fails over one attached in a mount namespace of its own", "a private disk over read-only layers", build+"CONFIG_OVERLAY_FS", overlay),
		row(true, "erofs", "mounted a 4 KiB image, straight from the file and where that fails from a loop device", "templates", build+"CONFIG_EROFS_FS", erofs),
		row(true, "loop devices", "attached a file with LOOP_CONFIGURE", "private disks", "run `modprobe loop`; the kernel must be 5.8 or later", loopDevice),
		row(true, "control groups", "made a group with limits and a list of devices, and removed it", "limits, freezing, killing", "mount cgroup2 on /sys/fs/cgroup; on v2 run strata as a service with Delegate=yes", groups),
		row(true, "seccomp filters", "loaded the default filter on a thread", "the filter of system calls", build+"CONFIG_SECCOMP_FILTER", filter),
		row(true, "pidfd", "opened one and sent it signal 0", "signals that reach the right process only", "use Linux 5.3 or later", pidfd),
		row(true, "clone3", "called it without arguments", "starting a process in its control group", "use Linux 5.7 or later", clone3),
		row(true, "openat2", "opened a folder beneath another", "safe paths inside what is hostile", "use Linux 5.6 or later", openat2),
	}
}

func extras(verdict string) []probe {
	return []probe{
		row(false, "Landlock", "asked the kernel for its version", "a second fence around strata's own programs", "add landlock to the kernel's lsm= list", landlock),
		row(false, "memory guarantees", "looked for who serves memory, cgroup v1 or v2", "a guarantee of memory is a soft limit and what admission refuses: who takes all memory for programs presses files out of it, and what runs outside of strata presses as well", "boot with systemd.unified_cgroup_hierarchy=1", keeps),
		row(false, "swap accounting", "looked for the limit in a group made for it", "limits on swap: an environment can swap beyond its memory limit", "boot with swapaccount=1", swap),
		row(false, "pressure figures", "read /proc/pressure/memory", "pressure in `strata resources`", "boot with psi=1", pressure),
		row(false, "FUSE", "opened /dev/fuse", "file systems in user space, inside environments that ask for them", "run `modprobe fuse`", device("/dev/fuse")),
		row(false, "KVM", "had it run a loop of a million instructions", "guests and machines at the processor's own speed: QEMU translates them (TCG)", "load kvm_intel or kvm_amd; inside a virtual machine, its host must allow nested virtualization", kvm(verdict)),
		row(false, "lxcfs", "read its view of /proc/meminfo", "free and top inside a zone show the host's figures", "install lxcfs and start it", lxcfs),
	}
}

func root(context.Context) (string, error) {
	if id := os.Geteuid(); id != 0 {
		return "", fmt.Errorf("running as user %d", id)
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return "", err
	}
	var inside, outside, count uint64
	if _, err := fmt.Sscan(string(text), &inside, &outside, &count); err == nil && (outside != 0 || count != 1<<32-1) {
		return "", fmt.Errorf("root of a user namespace only, which has %d user ids", count)
	}
	return "user 0 of the host", nil
}

func kernel(context.Context) (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", err
	}
	release := unix.ByteSliceToString(name.Release[:])
	v, err := seccomp.ParseVersion(release)
	if err != nil {
		return release, err
	}
	if v.Before(5, 19) {
		return release, fmt.Errorf("older than 5.19")
	}
	return release, nil
}

func groups(ctx context.Context) (string, error) {
	l, err := resource.Probe(ctx, fmt.Sprintf("strata-check-%d", os.Getpid()))
	detail := ""
	if l.Version != "" {
		detail = "cgroup " + l.Version
	}
	return detail, err
}

// keeps tells whether the kernel keeps guaranteed memory whatever happens.
func keeps(context.Context) (string, error) {
	l, err := resource.Detect()
	if err != nil {
		return "", err
	}
	if l.Unified == "" || l.Controllers["memory"] != l.Unified {
		return "", fmt.Errorf("the memory controller is at cgroup v1, which knows soft limits only")
	}
	return "memory.min of cgroup v2", nil
}

// swap asks a group of its own: v2's top group does not show it.
func swap(ctx context.Context) (string, error) {
	l, err := resource.Probe(ctx, fmt.Sprintf("strata-check-swap-%d", os.Getpid()))
	if err != nil {
		return "", err
	}
	if !l.Swap {
		return "", fmt.Errorf("the memory controller has no limit for swap")
	}
	return "", nil
}

func filter(context.Context) (string, error) {
	v, err := seccomp.Kernel()
	if err != nil {
		return "", err
	}
	f, err := seccomp.Default(nil, v)
	if err != nil {
		return "", err
	}
	err = thread.Spare(func() error {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
		return f.Load(0)
	})
	return fmt.Sprintf("%d instructions", len(f)), err
}

func pidfd(context.Context) (string, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return "", unix.PidfdSendSignal(fd, 0, nil, 0)
}

// clone3 without arguments makes nothing: EINVAL is the answer of a kernel that
// has it.
func clone3(context.Context) (string, error) {
	if _, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0); errno != unix.EINVAL {
		return "", errno
	}
	return "", nil
}

func openat2(context.Context) (string, error) {
	top, err := unix.Open("/proc", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(top)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH}
	if fd, err := unix.Openat2(top, "../etc", &how); err == nil {
		unix.Close(fd)
		return "", fmt.Errorf("a path escaped from its folder")
	} else if err != unix.EXDEV {
		return "", err
	}
	fd, err := unix.Openat2(top, "sys", &how)
	if err == nil {
		unix.Close(fd)
	}
	return "", err
}

// landlockVersion asks for the ABI. Source: linux/landlock.h, LANDLOCK_CREATE_RULESET_VERSION.
const landlockVersion = 1 << 0

func landlock(context.Context) (string, error) {
	abi, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, landlockVersion)
	if errno != 0 {
		return "", errno
	}
	return fmt.Sprintf("ABI %d", abi), nil
}

func pressure(context.Context) (string, error) {
	_, err := os.ReadFile("/proc/pressure/memory")
	return "", err
}

func device(path string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", &os.PathError{Op: "open", Path: path, Err: err}
		}
		unix.Close(fd)
		return "", nil
	}
}

// kvm tries it in a process of its own, since the device opens on hosts where no
// guest comes up. Where the loop runs, what the daemon has seen of its first guest
// counts.
func kvm(verdict string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		agent, err := place.Binary("strata-agent")
		if err != nil {
			return "strata-agent, which tries it, was not found", errUnknown
		}
		v, _ := accel.Try(ctx, agent)
		if v.Accelerator == qemu.KVM {
			if p, err := qemu.Find(ctx); err == nil {
				if seen, ok := accel.Recall(verdict, p); ok {
					v = seen
				}
			}
		}
		if v.Accelerator != qemu.KVM {
			return "", errors.New(v.String())
		}
		return v.Reason, nil
	}
}

func lxcfs(context.Context) (string, error) {
	_, err := os.ReadFile(place.LXCFS + "/proc/meminfo")
	return "", err
}

// tools are looked for, not run: each states what it is for.
func tools() []probe {
	var out []probe
	for _, t := range []struct {
		name, pkg, lost string
		needed          bool
	}{
		{"mkfs.ext4", "e2fsprogs", "private disks", true},
		{"mkfs.erofs", "erofs-utils", "importing and pulling templates", true},
		{"e2fsck", "e2fsprogs", "repair of private disks, and growing them", false},
		{"resize2fs", "e2fsprogs", "growing private disks", false},
		{"mmdebstrap", "mmdebstrap", "`strata template build`", false},
		{"nft", "nftables", "nothing of strata's; only looking at its rules by hand", false},
	} {
		out = append(out, row(t.needed, t.name, "looked for on the PATH, /usr/sbin and /sbin", t.lost, "install the package "+t.pkg,
			func(context.Context) (string, error) { return tool(t.name) }))
	}
	return append(out,
		row(false, "QEMU", "asked for its version and machines", "guests and machines", "install the package qemu-system-x86 (arm64: qemu-system-arm), 6.2 or later", emulator),
		row(false, "virtiofsd", "asked for its version", "nothing: strata-volume serves the volumes of guests and machines then", "install the package virtiofsd (Debian 12: qemu-system-common)", volumes),
		row(false, "UEFI firmware", "looked for QEMU's descriptors of it, and the files that they name", "machines with --firmware uefi; they boot by BIOS", "install the package ovmf (Fedora: edk2-ovmf)", firmware(machine.UEFI)),
		row(false, "Secure Boot", "looked for a UEFI firmware with Microsoft's keys", "machines with --firmware secure", "install the package ovmf (Fedora: edk2-ovmf)", firmware(machine.UEFISecure)),
		row(false, "swtpm", "asked it what it can do", "machines with a TPM (--tpm)", "install the package swtpm, 0.7 or later", trusted))
}

func emulator(ctx context.Context) (string, error) {
	p, err := qemu.Find(ctx)
	if err != nil {
		return "", err
	}
	detail := p.Path + " " + p.Version
	if p.Turns {
		detail += " (without KVM processors of one machine take turns; from 8.1 they run at once)"
	}
	return detail, nil
}

func volumes(ctx context.Context) (string, error) {
	p, err := virtiofs.Find(ctx)
	if err != nil {
		return "", err
	}
	return p.Path + " " + p.Version, nil
}

func tool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fault.Missingf("the program is not there")
}

// capabilities are those of this process that strata uses.
func capabilities() []probe {
	var out []probe
	for _, c := range []struct {
		name   string
		bit    uint
		needed bool
		lost   string
	}{
		{"SYS_ADMIN", unix.CAP_SYS_ADMIN, true, "namespaces and mounts"},
		{"NET_ADMIN", unix.CAP_NET_ADMIN, true, "networks"},
		{"SETUID", unix.CAP_SETUID, true, "user ids of their own for environments"},
		{"SETGID", unix.CAP_SETGID, true, "group ids of their own for environments"},
		{"CHOWN", unix.CAP_CHOWN, true, "files that belong to environments"},
		{"DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE, true, "reading and writing what belongs to environments"},
		{"FOWNER", unix.CAP_FOWNER, true, "modes of what belongs to environments"},
		{"KILL", unix.CAP_KILL, true, "stopping environments"},
		{"SYS_PTRACE", unix.CAP_SYS_PTRACE, true, "roots and volumes of zones, and entering environments"},
		{"SYS_CHROOT", unix.CAP_SYS_CHROOT, true, "roots and volumes of zones, and entering environments"},
		{"MKNOD", unix.CAP_MKNOD, false, "devices in imported layers"},
		{"SETFCAP", unix.CAP_SETFCAP, false, "file capabilities in imported layers"},
		{"SYS_RESOURCE", unix.CAP_SYS_RESOURCE, false, "raising rlimits, lowering oom_score_adj, and growing disks of zones that run"},
	} {
		out = append(out, row(c.needed, "CAP_"+c.name, "asked the kernel with capget", c.lost, "give stratad CAP_"+c.name+" (a container or a service unit took it away)",
			func(context.Context) (string, error) { return capability(c.bit) }))
	}
	return out
}

func capability(bit uint) (string, error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return "", err
	}
	if data[bit/32].Effective&(1<<(bit%32)) == 0 {
		return "", fmt.Errorf("this process does not have it")
	}
	return "", nil
}

// scratch makes a folder on a real disk where there is one: a tmpfs cannot carry
// images. The caller removes it.
func scratch() (string, error) {
	for _, dir := range []string{"/var/lib/strata", "/var/tmp"} {
		if made, err := os.MkdirTemp(dir, ".strata-check-"); err == nil {
			return made, nil
		}
	}
	return os.MkdirTemp("", "strata-check-")
}
