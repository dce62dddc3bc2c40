package process

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of a list of processes.
const (
	Max        = 4096 // of one list
	maxCommand = 1024 // bytes
	maxFile    = 8192 // bytes of one file of /proc
)

// tick is the unit of times in /proc. Unit: nanoseconds.
// Source: linux/param.h, USER_HZ is 100 everywhere.
const tick = 1e9 / 100

// Process is one process.
type Process struct {
	PID     int    // as /proc has it
	Parent  int    //
	Inside  int    // its number in the namespace below; PID where there is none
	UID     uint32 // effective, as whoever reads has it
	CPU     int64  // nanoseconds
	Age     int64  // nanoseconds
	Memory  int64  // bytes resident
	Command string // as executed, arguments parted by blanks; "[name]" where that is not to be had
	Kernel  bool   // a thread of the kernel's
}

// Reader reads one process after the other. It is not safe for concurrent use.
type Reader struct {
	proc string // "/proc", but for tests
	now  int64  // nanoseconds since boot
	page int64
	b    [maxFile]byte
}

// NewReader returns a reader whose ages count until now.
func NewReader() *Reader {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // which cannot fail
	return &Reader{proc: "/proc", now: t.Nano(), page: int64(os.Getpagesize())}
}

// Read reads one process; ok is false where it is gone.
func (r *Reader) Read(pid int) (p Process, ok bool) {
	dir := r.proc + "/" + strconv.Itoa(pid) + "/"
	p = Process{PID: pid, Inside: pid}
	name, ok := r.stat(dir, &p)
	if !ok || p.Kernel {
		return p, ok
	}
	if !parseStatus(r.file(dir+"status"), &p) {
		return p, false
	}
	if p.Command = printable(r.file(dir + "cmdline")); p.Command == "" {
		p.Command = "[" + name + "]"
	}
	return p, true
}

func (r *Reader) stat(dir string, p *Process) (name string, ok bool) {
	var started, pages int64
	name, ok = parseStat(r.file(dir+"stat"), p, &started, &pages)
	p.Memory, p.Age = pages*r.page, max(0, r.now-started)
	return name, ok
}

// file returns the beginning of a file, nil where it cannot be read; the next one
// takes its place.
func (r *Reader) file(path string) []byte {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, r.b[:])
	if err != nil || n <= 0 {
		return nil
	}
	return r.b[:n]
}

// The fields of /proc/PID/stat from the state on, counted from 0. Source: proc(5).
const (
	statParent  = 1
	statFlags   = 6
	statUser    = 11
	statSystem  = 12
	statStarted = 19
	statRSS     = 21
	flagKernel  = 0x00200000 // linux/sched.h, PF_KTHREAD
)

// parseStat reads the one line of /proc/PID/stat. The name in it may be anything,
// brackets and blanks included.
func parseStat(line []byte, p *Process, started, pages *int64) (name string, ok bool) {
	text := string(line)
	begin, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if begin < 0 || end < begin {
		return "", false
	}
	f := strings.Fields(text[end+1:])
	if len(f) <= statRSS {
		return "", false
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return max(0, n)
	}
	p.Parent, p.Kernel = int(number(statParent)), number(statFlags)&flagKernel != 0
	p.CPU = (number(statUser) + number(statSystem)) * tick
	*started, *pages = number(statStarted)*tick, number(statRSS)
	return printable([]byte(text[begin+1 : end])), true
}

// parseStatus reads the user and the number inside of /proc/PID/status.
func parseStatus(text []byte, p *Process) (ok bool) {
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		switch f := strings.Fields(value); {
		case key == "Uid" && len(f) > 1:
			uid, err := strconv.ParseUint(f[1], 10, 32)
			p.UID, ok = uint32(uid), err == nil
		case key == "NSpid" && len(f) > 1: // the first is ours, the next the environment's
			if pid, err := strconv.Atoi(f[1]); err == nil && pid > 0 {
				p.Inside = pid
			}
		}
	}
	return ok
}

// printable makes one line of words, cut to maxCommand.
func printable(b []byte) string {
	text := strings.ToValidUTF8(string(b[:min(len(b), maxCommand)]), "?")
	return strings.TrimRight(strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, text), " ")
}
