package vmagent

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of a list of processes.
const (
	maxProcesses = 4096
	maxCommand   = 1024 // bytes
)

// tick is the unit of times in /proc. Unit: nanoseconds.
// Source: linux/param.h, USER_HZ is 100 everywhere.
const tick = 1e9 / 100

// process is one process of the environment.
type process struct {
	pid, parent int64
	user        string
	cpu, memory int64 // nanoseconds, bytes
	command     string
}

// processes lists all but those of the kernel, and the agent where it is not
// process 1; more tells whether there are more than are listed.
func processes() (list []process, more bool) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, false
	}
	defer proc.Close()
	names := users()
	own := os.Getpid()
	for {
		entries, err := proc.Readdirnames(512)
		for _, name := range entries {
			pid, e := strconv.Atoi(name)
			if e != nil || pid == own && own != 1 {
				continue
			}
			p, ok := look(pid)
			if !ok {
				continue
			}
			if len(list) == maxProcesses {
				return list, true
			}
			if known := names[p.user]; known != "" {
				p.user = known
			}
			list = append(list, p)
		}
		if err != nil {
			return list, false
		}
	}
}

// The fields of /proc/PID/stat from the state on, counted from 0. Source: proc(5).
const (
	statParent = 1
	statFlags  = 6
	statUser   = 11
	statSystem = 12
	statRSS    = 21
	statLast   = statRSS
	flagKernel = 0x00200000 // linux/sched.h, PF_KTHREAD
)

// look reads one process; ok is false for the kernel's own, and where it is gone.
func look(pid int) (p process, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	var st unix.Stat_t
	text := readLine(dir + "stat")
	end := strings.LastIndexByte(text, ')')
	begin := strings.IndexByte(text, '(')
	if end < 0 || begin < 0 || unix.Stat(dir, &st) != nil {
		return p, false
	}
	f := strings.Fields(text[end+1:])
	if len(f) <= statLast {
		return p, false
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(f[i], 10, 64)
		return n
	}
	if number(statFlags)&flagKernel != 0 {
		return p, false
	}
	p = process{
		pid: int64(pid), parent: number(statParent), user: strconv.FormatUint(uint64(st.Uid), 10),
		cpu: (number(statUser) + number(statSystem)) * tick, memory: number(statRSS) * int64(os.Getpagesize()),
		command: command(dir),
	}
	if p.command == "" {
		p.command = "[" + text[begin+1:end] + "]"
	}
	return p, true
}

// command is what was executed, its arguments parted by blanks.
func command(dir string) string {
	fd, err := unix.Open(dir+"cmdline", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	b := make([]byte, maxCommand)
	n, err := unix.Read(fd, b)
	if err != nil || n <= 0 {
		return ""
	}
	return strings.TrimRight(strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, string(b[:n])), " ")
}

// users reads the environment's names of user ids. The file is its own, and may be
// anything: it is read with bounds, and what cannot be read has no names.
func users() map[string]string {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/etc/passwd", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	b := make([]byte, 64<<10)
	n, _ := unix.Read(fd, b)
	names := map[string]string{}
	for line := range strings.Lines(string(b[:max(n, 0)])) {
		f := strings.SplitN(line, ":", 4)
		if len(f) == 4 && names[f[2]] == "" && len(f[0]) <= 64 {
			names[f[2]] = f[0]
		}
	}
	return names
}
