package drivertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
	"golang.org/x/sys/unix"
)

var processCases = []one{
	{"the environment is the plan's, with HOME", 0, environment},
	{"the working folder is made", 0, workDir},
	{"users and groups are those of the environment", 0, users},
	{"a user that is not there is a fault", 0, userMissing},
	{"a spoilt /etc/passwd keeps nobody out who needs none", 0, usersSpoilt},
	{"capabilities are docker's, and none for others than root", 0, capabilities},
	{"no new privileges, unless asked for", 0, noNewPrivileges},
	{"system calls are filtered", 0, filtered},
	{"PID 1 reaps orphans", 0, reaps},
}

var insideCases = []one{
	{"the hostname is the plan's", 0, hostname},
	{"strata's files are in /etc", 0, files},
	{"a read-only root cannot be written", 0, readOnly},
	{"volumes show host folders with their owners", 0, volumes},
	{"a volume's target never leaves the root", 0, volumeEscape},
	{"tmpfs has its size and mode", 0, tmpfs},
	{"only harmless devices are there", 0, devices},
	{"what proc and sys tell of the host is masked", 0, maskedPaths},
	{"no process of others is seen", 0, ownProcesses},
	{"what the kernel counts by user is not counted against the host's root", 0, countedApart},
	{"the agent cannot be looked into, not even while it copies", 0, agentClosed},
}

func environment(s *suite) {
	p := s.app("env")
	got := s.output(p)
	s.equal("the environment", got, "PATH=/bin:/sbin\nCOLOUR=blue\nHOME=/root")
	p = s.app("env")
	p.Main.Env = append(p.Main.Env, "HOME=/else")
	s.contains("the environment", s.output(p), "HOME=/else")
}

func workDir(s *suite) {
	p := s.app("pwd")
	p.Main.WorkDir = "/srv/a/b"
	s.equal("the folder", s.output(p), "/srv/a/b")
	p = s.app("pwd")
	s.equal("the folder", s.output(p), "/")
}

func users(s *suite) {
	for user, want := range map[string]string{
		"":            "0 0 0",
		"alice":       "1000 1000 1000 10",
		"1000":        "1000 1000 1000 10",
		"alice:staff": "1000 50 50",
		"1234":        "1234 0 0",
		"1234:4321":   "1234 4321 4321",
		"root:10":     "0 10 10",
	} {
		p := s.sh("echo $(id -u) $(id -g) $(id -G)")
		p.Main.User = user
		s.equal("user "+user, s.output(p), want)
	}
}

func userMissing(s *suite) {
	p := s.app("true")
	p.Main.User = "bob"
	s.refused(p, fault.Missing, "user", "unable to find user bob: no matching entries in passwd file")
	p.Main.User = "alice:bobs"
	s.refused(p, fault.Missing, "user", "unable to find group bobs: no matching entries in group file")
	p.Main.User = "70000"
	s.refused(p, fault.Invalid, "user", "65535")
}

// usersSpoilt: files that are links, pipes or devices are not read, and root and
// strata's own copying get in all the same.
func usersSpoilt(s *suite) {
	for _, spoil := range []string{"mkfifo /etc/passwd", "ln -s /dev/zero /etc/passwd", "mkdir /etc/passwd", "truncate -s 1T /etc/passwd", "ln -s passwd /etc/passwd", "ln -s /proc/1/fd/0 /etc/passwd"} {
		r := s.start(s.sh("rm /etc/passwd; " + spoil + "; echo spoilt; sleep 99"))
		s.eventually(spoil, func() bool {
			return r.execAs(stratum.Process{Args: []string{"test", "-f", "/etc/passwd"}, User: "0:0"}).ended.Status != 0 ||
				strings.HasPrefix(spoil, "truncate")
		})
		for _, user := range []string{"", "0", "0:0", "1000:1000"} {
			s.equal(spoil+": the status of user "+user, r.execAs(stratum.Process{Args: []string{"true"}, User: user}).ended.Status, uint8(0))
		}
		_, err := r.tryExec(stratum.Process{Args: []string{"true"}, User: "alice"})
		if fault.KindOf(err) != fault.Unable && fault.KindOf(err) != fault.Missing || err == nil {
			s.Errorf("%s: alice gets in, or not for it: %v", spoil, err)
		}
		r.end()
	}
}

// dockers is the bit set of docker's fourteen capabilities.
const dockers = "00000000a80425fb"

func capabilities(s *suite) {
	const script = "grep -E '^Cap(Prm|Eff|Bnd|Inh|Amb)' /proc/self/status | tr -d '\\t'"
	s.equal("root's", s.output(s.sh(script)), "CapInh:0000000000000000\nCapPrm:"+dockers+"\nCapEff:"+dockers+"\nCapBnd:"+dockers+"\nCapAmb:0000000000000000")
	p := s.sh(script)
	p.Main.User = "alice"
	s.equal("alice's", s.output(p), "CapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000\nCapBnd:"+dockers+"\nCapAmb:0000000000000000")
	r := s.start(s.app("sleep", "99"))
	s.contains("an exec's", r.exec("cat", "/proc/self/status").stdout, "CapEff:\t"+dockers)
}

func noNewPrivileges(s *suite) {
	s.equal("by default", s.output(s.sh("grep NoNewPrivs /proc/self/status")), "NoNewPrivs:\t1")
	p := s.sh("grep NoNewPrivs /proc/self/status; cp /bin/busybox /tmp/id; chown root /tmp/id; chmod 4755 /tmp/id; ls -l /tmp/id | cut -c1-10")
	p.NewPrivileges = true
	r := s.start(p)
	s.equal("when asked for", r.wait().stdout, "NoNewPrivs:\t0\n-rwsr-xr-x\n")
}

func filtered(s *suite) {
	s.equal("the mode", s.output(s.sh("grep ^Seccomp: /proc/self/status")), "Seccomp:\t2")
	got := s.start(s.sh("unshare -U true; mount -t tmpfs x /tmp; echo $?")).wait()
	s.contains("standard error", got.stderr, "unshare")
	s.equal("the mount's status", strings.TrimSpace(got.stdout), "1")
	p := s.sh("grep ^Seccomp: /proc/self/status")
	p.NewPrivileges, p.Main.User = true, "alice"
	s.equal("the mode with new privileges", s.output(p), "Seccomp:\t2")
}

func reaps(s *suite) {
	r := s.start(s.sh("for i in 1 2 3 4 5; do (sleep 0.01 & ) ; done; sleep 99"))
	s.eventually("no zombie is left", func() bool {
		out := r.exec("ps", "-o", "stat,comm").stdout
		return !strings.Contains(out, "Z") && strings.Count(out, "sleep") == 1
	})
}

func hostname(s *suite) {
	p := s.sh("hostname; cat /proc/sys/kernel/hostname")
	p.Hostname = "inside.example"
	s.equal("the hostname", s.output(p), "inside.example\ninside.example")
}

func files(s *suite) {
	for _, readOnly := range []bool{false, true} {
		p := s.sh("cat /etc/hosts /etc/hostname /etc/resolv.conf; ls -ln /etc/hosts | cut -c1-10")
		p.ReadOnly = readOnly
		p.Files = []stratum.File{
			{Path: "/etc/hosts", Data: []byte("hosts\n")}, {Path: "/etc/hostname", Data: []byte("name\n")}, {Path: "/etc/resolv.conf", Data: []byte("dns\n")},
		}
		s.equal("the files", s.output(p), "hosts\nname\ndns\n-rw-r--r--")
	}
}

func readOnly(s *suite) {
	p := s.sh("touch /root/x 2>&1; mount -o remount,rw / 2>&1; touch /root/x 2>&1; echo y >/dev/shm/y && cat /dev/shm/y")
	p.ReadOnly = true
	got := s.output(p)
	s.equal("how often it was refused", strings.Count(got, "Read-only file system"), 2)
	s.contains("the output", got, "y")
}

func volumes(s *suite) {
	dir := s.Folder(s.T)
	os.WriteFile(filepath.Join(dir, "mine"), []byte("root's"), 0o600)
	os.WriteFile(filepath.Join(dir, "alices"), []byte("alice's"), 0o600)
	os.Chown(filepath.Join(dir, "alices"), 1000, 1000)
	p := s.sh("stat -c %u:%g /data/mine /data/alices; echo new >/data/new; chown 1000:10 /data/new; touch /ro/x; cat /one; cat /deep/in/it/mine")
	p.Volumes = []api.Volume{
		{Source: dir, Target: "/deep/in/it", ReadOnly: true}, {Source: dir, Target: "/data"}, {Source: dir, Target: "/ro", ReadOnly: true}, {Source: filepath.Join(dir, "alices"), Target: "/one"},
	}
	got := s.start(p).wait()
	s.equal("the owners", got.stdout, "0:0\n1000:1000\nalice'sroot's")
	s.contains("standard error", got.stderr, "Read-only file system")
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, "new"), &st); err != nil || st.Uid != 1000 || st.Gid != 10 {
		s.Errorf("the new file is %d:%d's, %v; want 1000:10", st.Uid, st.Gid, err)
	}
}

func volumeEscape(s *suite) {
	dir := s.Folder(s.T)
	os.WriteFile(filepath.Join(dir, "bait"), []byte("caught"), 0o644)
	p := s.sh("cat /etc/strata-escape/bait; ls /var/escape/strata-escape")
	// The template's /var/escape points far above its root: it means /etc inside.
	p.Volumes = []api.Volume{{Source: dir, Target: "/var/escape/strata-escape"}}
	s.equal("what is inside", s.output(p), "caughtbait")
	if _, err := os.Lstat("/etc/strata-escape"); err == nil {
		s.Error("the host's /etc was written")
	}
}

func tmpfs(s *suite) {
	p := s.sh("stat -c %a /scratch; dd if=/dev/zero of=/scratch/x bs=1M count=9 2>&1; df -m /scratch | tail -1 | tr -s ' ' | cut -d' ' -f2")
	p.Tmpfs = []api.Tmpfs{{Target: "/scratch", Size: 8 * unit.MiB, Mode: 0o1770}}
	got := s.output(p)
	s.contains("mode", got, "1770")
	s.contains("filling it", got, "No space left on device")
	s.contains("size", got, "\n8")
}

func devices(s *suite) {
	got := s.output(s.sh("ls /dev | tr '\\n' ' '"))
	s.equal("/dev", got, "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero")
	// A zone may not make a node; a kernel of its own makes it, and nobody can open it.
	out := s.start(s.sh("mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem || echo refused; mknod /root/disk b 7 0 && head -c 1 /root/disk || echo refused; echo x >/dev/null && head -c 4 /dev/zero | wc -c")).wait()
	s.equal("how often a device was refused", strings.Count(out.stdout, "refused"), 2)
	s.contains("reading zeros", out.stdout, "4")
}

func maskedPaths(s *suite) {
	got := s.output(s.sh("for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug; do [ -e $f ] && cat $f; done; ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v : ; echo done"))
	s.equal("what is there to read", strings.TrimSpace(got), "done")
	out := s.start(s.sh("echo 1 >/proc/sys/kernel/panic; echo b >/proc/sysrq-trigger; echo x >/proc/irq/default_smp_affinity; touch /sys/x; echo 1 >/proc/sys/net/ipv4/ip_forward")).wait()
	if n := strings.Count(out.stderr, "Read-only file system"); n < 4 {
		s.Errorf("%d writes were refused: %s", n, out.stderr)
	}
}

func ownProcesses(s *suite) {
	// A kernel of its own shows its threads besides, which have no memory.
	got := s.output(s.sh("grep -ls ^VmSize /proc/[0-9]*/status | wc -l; hostname >/dev/null; kill -0 2 2>/dev/null; cat /proc/1/comm"))
	lines := strings.Fields(got)
	if len(lines) != 2 || len(lines[0]) > 1 {
		s.Errorf("%q processes are seen", lines)
	}
}

// agentClosed: root inside, with the very capabilities of the agent's commands,
// learns nothing of one but numbers, and so can neither trace it nor take its descriptors.
func agentClosed(s *suite) {
	r := s.start(s.app("sleep", "99"))
	copying, err := r.tryExec(stratum.Process{Args: []string{"tar-extract", "/tmp"}, WorkDir: "/", User: "0:0", Agent: true, Stdin: true})
	if err != nil {
		s.Fatal(err)
	}
	const script = `for p in /proc/[0-9]*; do
	grep -qs ^strata- $p/comm $p/cmdline && { echo agent; readlink $p/exe; cat $p/environ; readlink $p/fd/*; head -c 1 $p/mem; }
done 2>/dev/null; readlink /proc/self/exe`
	var got string
	s.eventually("the copying agent is seen", func() bool {
		got = r.exec("sh", "-c", script).stdout
		return strings.Count(got, "agent\n") == 2
	})
	s.equal("what is seen of the agents", got, "agent\nagent\n/bin/busybox\n")
	copying.say(stream.CloseStdin, nil)
	s.equal("the copying one's status", copying.wait().ended.Status, uint8(0))
}

// countedApart: the owner of an environment's user namespace pays for what is in
// it, so it must be a user of the environment's own; where it has none, what it has
// on the host must be such a user's.
func countedApart(s *suite) {
	p := s.app("sleep", "99")
	r := s.start(p)
	of := fmt.Sprintf("/proc/%d", r.live.PID())
	own, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		s.Fatal(err)
	}
	if in, err := os.Readlink(of + "/ns/user"); err != nil {
		s.Fatal(err)
	} else if in == own {
		text, err := os.ReadFile(of + "/status")
		if err != nil {
			s.Fatal(err)
		}
		s.contains("the first process", string(text), fmt.Sprintf("\nUid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", p.IDBase))
		return
	}
	f, err := os.Open(of + "/ns/user")
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	owner, err := unix.IoctlGetInt(int(f.Fd()), unix.NS_GET_OWNER_UID)
	if err != nil || owner != int(p.IDBase) {
		s.Errorf("the user namespace belongs to %d, %v; want %d", owner, err, p.IDBase)
	}
}
