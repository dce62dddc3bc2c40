package sandbox

// Masked and Protected are docker's and runc's. They stand for everything in proc
// that is not of the zone's own namespaces.
// Source: github.com/moby/moby, daemon/pkg/oci/defaults.go.
var (
	Masked = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	Protected = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// Devices are the nodes that are shown inside. Console, ptmx and pts are the zone's own.
var Devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// Links are those that docker makes in /dev, but for /dev/core.
var Links = [][2]string{
	{"fd", "/proc/self/fd"}, {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
}
