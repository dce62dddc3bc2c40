package sandbox

// names are the kernel's capabilities by number.
// Source: linux/capability.h.
var names = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// App are those of the OCI default, as docker grants them.
var App = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP",
	"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// System are what an init such as systemd needs besides. They count
// against what the zone's own user namespace owns: its mounts, its network, its
// processes. Those that the kernel checks against the host (SYS_MODULE, SYS_TIME,
// SYS_RAWIO, BPF, …) are left out; with SYS_RAWIO systemd would try to mount tracefs.
var System = append([]string{
	"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_BROADCAST", "CAP_DAC_READ_SEARCH", "CAP_LINUX_IMMUTABLE", "CAP_IPC_OWNER", "CAP_IPC_LOCK",
	"CAP_SYS_PTRACE", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TTY_CONFIG", "CAP_LEASE", "CAP_AUDIT_CONTROL",
}, App...)

// Numbers returns the numbers of capabilities, in the kernel's order.
func Numbers(of []string) []int {
	var out []int
	for n, name := range names {
		for _, one := range of {
			if one == name {
				out = append(out, n)
			}
		}
	}
	return out
}

// Kill is the number of CAP_KILL.
const Kill = 5

// All returns the numbers of all capabilities that are known.
func All() []int { return Numbers(names[:]) }
