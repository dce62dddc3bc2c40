package contract

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/test/bed"
)

func init() {
	promise(
		row{name: "exit-status", test: exitStatus},
		row{name: "death-by-signal", test: deathBySignal},
		row{name: "command-not-found", test: commandNotFound},
		row{name: "command-not-executable", test: commandNotExecutable},
		row{name: "output-apart", test: outputApart},
		row{name: "output-binary", test: outputBinary},
		row{name: "stdin-end", test: stdinEnd},
		row{name: "tty", test: tty},
		row{name: "environment", test: environmentVariables},
		row{name: "workdir", test: workdir},
		row{name: "user", test: user},
		row{name: "hostname", test: hostname},
		row{name: "exec-inside", test: execInside},
		row{name: "exec-detached", test: execDetached},
		row{name: "signal-forwarded", test: signalForwarded},
		row{name: "isolation", test: isolation},
		row{name: "no-privileges", test: noPrivileges},
	)
}

func exitStatus(t *testing.T, a at) {
	if !a.boots() {
		for _, status := range []int{0, 42, 124, 125, 126, 127, 128, 137} {
			expect(t, a.sh(t, fmt.Sprintf("exit %d", status)), status, "")
		}
	}
	for status, out := range map[int]bed.Output{255: a.shared.told(a).out, 1: a.shared.plain(a).out, 6: a.shared.signalled(a)} {
		if out.Status != status {
			t.Errorf("exit status %d; want %d\n%s", out.Status, status, out.Stderr)
		}
	}
	for status := range 256 {
		if out := a.exec(t, a.still(), fmt.Sprintf("exit %d", status)); out.Status != status {
			t.Errorf("exec: exit status %d; want %d\n%s", out.Status, status, out.Stderr)
		}
	}
}

func deathBySignal(t *testing.T, a at) {
	check := func(signal int, out bed.Output, exit *api.Exit) {
		t.Helper()
		if exit == nil || exit.Signal != signal || exit.Status != 128+signal || exit.OOM || out.Status != 128+signal {
			t.Errorf("signal %d: exit status %d, and show says %+v", signal, out.Status, exit)
		}
	}
	if !a.boots() {
		for _, signal := range []int{1, 6, 15} {
			name := a.name(t)
			out := a.run("--name", name, "busybox", "sh", "-c", fmt.Sprintf("kill -%d $$", signal))
			check(signal, out, a.show(t, name).Exit)
		}
	}
	fed := a.shared.fed(a)
	check(11, fed.out, fed.exit)
	check(9, a.shared.crashed(a), a.show(t, "crashed").Exit)
	expect(t, a.exec(t, a.still(), "kill -9 $$"), 137, "")
}

func commandNotFound(t *testing.T, a at) {
	for program, words := range map[string]string{"no-such-program": "not found", "/no/such/program": "no such file"} {
		check := func(out bed.Output) {
			t.Helper()
			expect(t, out, 127, "")
			says(t, out.Stderr, program, words)
		}
		check(a.Try("exec", a.still(), program))
		if program[0] == '/' || !a.boots() {
			check(a.run("--rm", "busybox", program))
		}
	}
}

func commandNotExecutable(t *testing.T, a at) {
	for _, program := range []string{"/etc/passwd", "/etc"} {
		check := func(out bed.Output) {
			t.Helper()
			expect(t, out, 126, "")
			says(t, out.Stderr, program)
		}
		check(a.Try("exec", a.still(), program))
		if program == "/etc" || !a.boots() {
			check(a.run("--rm", "busybox", program))
		}
	}
}

func outputApart(t *testing.T, a at) {
	told := a.shared.told(a)
	if told.part["apart"] != "out1\nout2\nout3" || told.out.Stderr != "err1\nerr2\nerr3\n" {
		t.Errorf("output %q, error %q", told.part["apart"], told.out.Stderr)
	}
	out := a.exec(t, a.still(), "for i in 1 2 3; do echo out$i; echo err$i >&2; done")
	if out.Status != 0 || out.Stdout != "out1\nout2\nout3\n" || out.Stderr != "err1\nerr2\nerr3\n" {
		t.Errorf("exec: status %d, output %q, error %q", out.Status, out.Stdout, out.Stderr)
	}
}

func outputBinary(t *testing.T, a at) {
	fed := a.shared.fed(a)
	if fed.out.Stdout != fed.data || fed.out.Stderr != fed.data {
		t.Errorf("%d bytes of standard output and %d of error; want what was sent, on both", len(fed.out.Stdout), len(fed.out.Stderr))
	}
	out := a.Feed(strings.NewReader(fed.data), "exec", "-i", a.still(), "cat")
	if out.Status != 0 || out.Stdout != fed.data || out.Stderr != "" {
		t.Errorf("exec: status %d, %d bytes of standard output\n%s", out.Status, len(out.Stdout), out.Stderr)
	}
	out = a.Feed(strings.NewReader(fed.data), "exec", "-i", a.still(), "sh", "-c", "cat >&2")
	if out.Status != 0 || out.Stderr != fed.data || out.Stdout != "" {
		t.Errorf("exec: status %d, %d bytes of standard error", out.Status, len(out.Stderr))
	}
}

func stdinEnd(t *testing.T, a at) {
	if fed := a.shared.fed(a); fed.out.Status != 139 {
		t.Errorf("what reads to the end and then kills itself gives %d; want 139", fed.out.Status)
	}
	if got := a.shared.told(a).part["stdin"]; got != "0" {
		t.Errorf("%s bytes were read without -i; want 0", got)
	}
	expect(t, a.Feed(strings.NewReader("four"), "exec", "-i", a.still(), "wc", "-c"), 0, "4")
	expect(t, a.Feed(strings.NewReader("unseen"), "exec", a.still(), "wc", "-c"), 0, "0")
}

func tty(t *testing.T, a at) {
	line := `tty; trap 'stty size; exit 7' WINCH; stty size; while :; do sleep 0.1; done`
	name := a.still()
	for what, args := range map[string][]string{
		"run":  {"run", "--stratum", a.stratum, "--rm", "-it", "--name", a.name(t), "busybox", "sh", "-c", line},
		"exec": {"exec", "-it", name, "sh", "-c", line},
	} {
		term := a.Terminal(t, 31, 77, args...)
		term.Expect("/dev/pts/")
		term.Expect("31 77")
		term.Resize(40, 120)
		term.Expect("40 120")
		if status := term.Wait(); status != 7 {
			t.Errorf("%s: exit status %d; want 7\n%s", what, status, term.Screen())
		}
	}
}

func environmentVariables(t *testing.T, a at) {
	begins(t, a, "1 two words still /root")
	says(t, a.shared.told(a).part["path"], "/bin")
	expect(t, a.exec(t, a.still(), "echo $PATH"), 0, stillPath)
	expect(t, a.exec(t, a.still(), "echo $A$B$C", "-e", "B=3", "-e", "C=4"), 0, "134")
}

func workdir(t *testing.T, a at) {
	for got, want := range map[string]string{a.shared.plain(a).part["workdir"]: "/", a.shared.told(a).part["workdir"]: "/made/on/demand"} {
		if got != want {
			t.Errorf("it is in %q; want %q", got, want)
		}
	}
	begins(t, a, "in /tmp")
	expect(t, a.exec(t, a.still(), "pwd"), 0, "/tmp")
	expect(t, a.exec(t, a.still(), "pwd", "-w", "/etc"), 0, "/etc")
}

// begins waits until the main program of the still environment has said words.
func begins(t *testing.T, a at, words string) {
	t.Helper()
	until(t, "its main program says "+words, 10*time.Second, func() bool { return strings.Contains(a.Run("logs", a.still()), words) })
}

func user(t *testing.T, a at) {
	begins(t, a, "user 0:0")
	plain := a.shared.plain(a)
	if got := plain.part["user"]; got != "1000\n0\nout" {
		t.Errorf("as 1000 it says %q", got)
	}
	says(t, plain.out.Stderr, "err")
	if out := a.exec(t, a.still(), "touch /etc/x", "-u", "1000"); out.Status == 0 || !strings.Contains(out.Stderr, "Permission denied") {
		t.Errorf("writing in /etc as 1000: status %d, %q", out.Status, out.Stderr)
	}
	unknown := []func(...string) bed.Output{func(flags ...string) bed.Output { return a.exec(t, a.still(), "id", flags...) }}
	if !a.boots() {
		unknown = append(unknown, func(flags ...string) bed.Output { return a.sh(t, "id", flags...) })
	}
	for _, try := range unknown {
		out := try("-u", "nobody-of-that-name")
		if out.Status == 0 || out.Status > 127 {
			t.Errorf("an unknown user gives status %d", out.Status)
		}
		says(t, out.Stderr, "nobody-of-that-name")
	}
	for given, is := range map[string]string{"1000:1001": "1000\n1001", "root": "0\n0", "65534": "65534\n65534"} {
		expect(t, a.exec(t, a.still(), "id -u; id -g", "-u", given), 0, is)
		if !a.boots() {
			expect(t, a.sh(t, "id -u; id -g", "-u", given), 0, is)
		}
	}
	expect(t, a.exec(t, a.still(), "id -un", "-u", "root"), 0, "root")
	groups(t, a)
}

// groups are those of the environment's own file, and none but the one that is given.
func groups(t *testing.T, a at) {
	name := a.shared.alone.of(t, a)
	expect(t, a.exec(t, name, `echo "someone:x:1234:1235::/:/bin/sh" >> /etc/passwd; printf "one:x:77:someone\ntwo:x:78:a,someone\n" >> /etc/group`), 0, "")
	for given, is := range map[string]string{"someone": "1235 77 78", "1234": "1235 77 78", "someone:two": "78", "4321": "0"} {
		expect(t, a.exec(t, name, "id -G", "-u", given), 0, is)
	}
}

func hostname(t *testing.T, a at) {
	begins(t, a, "host "+a.still())
	got := a.shared.told(a).part["hostname"]
	if !strings.HasPrefix(got, "other\nother\n") {
		t.Errorf("with --hostname it says %q", got)
	}
	says(t, got, "127.0.0.1", "localhost", "\tother")
}

func execInside(t *testing.T, a at) {
	name := a.shared.alone.of(t, a)
	until(t, "the main program runs", 10*time.Second, func() bool { return a.exec(t, name, "cat /tmp/mark").Stdout == "mark\n" })
	expect(t, a.exec(t, name, "hostname"), 0, name)
	// Its processes are those of the environment: few, with the main program among them.
	out := a.exec(t, name, "ps -o pid,args")
	says(t, out.Stdout, "sleep 1001")
	// A kernel of its own has threads of its own, which ps shows in brackets.
	if n := strings.Count(out.Stdout, "\n") - strings.Count(out.Stdout, "["); n > 8 {
		t.Errorf("exec sees %d processes:\n%s", n, out.Stdout)
	}
	expect(t, a.exec(t, name, "ip -4 -o addr show eth0 | grep -c "+a.show(t, name).Network.IPv4), 0, "1")
	onKernel(t, a, name)
	if a.boots() { // the first namespaces of two kernels may have the same numbers
		return
	}
	inside := a.exec(t, name, "readlink /proc/self/ns/pid; readlink /proc/self/ns/net").Stdout
	outside := ""
	for _, ns := range []string{"pid", "net"} {
		link, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		outside += link + "\n"
	}
	if inside == outside || inside == "" {
		t.Errorf("exec is in the host's namespaces: %q", inside)
	}
}

func execDetached(t *testing.T, a at) {
	name := a.shared.alone.of(t, a)
	const words = `read word; echo "[$word]"; until [ -e /tmp/go ]; do sleep 0.1; done; echo went > /tmp/went`
	expect(t, a.Try("exec", "-d", name, "sh", "-c", words), 0, "")
	a.exec(t, name, "touch /tmp/go")
	until(t, "a program that was left alone goes on", 10*time.Second, func() bool { return a.exec(t, name, "cat /tmp/went").Stdout == "went\n" })
	if r := a.Try("exec", "-d", name, "no-such-program"); r.Status != 127 || !strings.Contains(r.Stderr, "no-such-program") {
		t.Errorf("a program that is missing: %+v", r)
	}
	if r := a.Try("exec", "-d", name, "/tmp"); r.Status != 126 {
		t.Errorf("a folder: %+v", r)
	}
}

// onKernel asks which kernel runs it, and since when: the host's for a zone, and one of its
// own deeper down.
func onKernel(t *testing.T, a at, name string) {
	for _, file := range []string{"/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/osrelease"} {
		host, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		inside := a.exec(t, name, "cat "+file).Stdout
		same := inside == string(host)
		if strings.HasSuffix(file, "osrelease") && same {
			continue // a kernel of its own may be of the host's release
		}
		if inside == "" || same == a.boots() {
			t.Errorf("%s says %q inside, and %q on the host", file, inside, host)
		}
	}
}

func signalForwarded(t *testing.T, a at) {
	says(t, a.shared.signalled(a).Stdout, "got usr1", "got int")
	says(t, a.Run("logs", "signalled"), "got usr1", "got int")
	expect(t, a.Try("wait", "signalled"), 0, "6")
}

func isolation(t *testing.T, a at) {
	one, two := a.shared.alone.of(t, a), a.still()
	for name, own := range map[string]string{one: "sleep 1001", two: "sleep 1000000"} {
		out := a.exec(t, name, "ps -o args; ls /dev")
		both := strings.Contains(out.Stdout, "sleep 1001") && strings.Contains(out.Stdout, "sleep 1000000")
		if both || !strings.Contains(out.Stdout, own) || strings.Contains(out.Stdout, "stratad") {
			t.Errorf("%s sees not its own processes, or others:\n%s", name, out.Stdout)
		}
		for _, device := range []string{"sda", "vda", "mem", "kmsg", "loop0", "kvm"} {
			if a.exec(t, name, "test -e /dev/"+device+" && head -c 1 /dev/"+device+" >/dev/null 2>&1").Status == 0 && a.stratum == "zone" {
				t.Errorf("%s can read the host's /dev/%s", name, device)
			}
		}
	}
	says(t, a.exec(t, one, "cat "+a.Places.Root+"/stratad.log 2>&1").Stdout, "No such file")
}

// triesOfRoot is a shell line that says which of the things that no root inside may do it can.
func triesOfRoot() string {
	line := "mkdir -p /mnt; "
	for what, try := range map[string]string{
		"mount":                "mount -t tmpfs none /mnt",
		"make a device":        "mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk",
		"load a kernel module": "! insmod /bin/busybox 2>&1 | grep -qi 'not permitted'",
		"set the clock":        "date -s 2001-01-01 && test $(date +%Y) = 2001",
		"reboot the host":      "reboot -f",
		"unshare the user":     "unshare -U true",
	} {
		line += fmt.Sprintf("( %s ) >/dev/null 2>&1 && echo 'root can %s'; ", try, what)
	}
	return line
}

func noPrivileges(t *testing.T, a at) {
	// The capabilities are those of the OCI default.
	if got := a.shared.told(a).part["privileges"]; got != "CapBnd:00000000a80425fb\nNoNewPrivs:1\nSeccomp:2" {
		t.Errorf("of root: %q", got)
	}
	if got := a.shared.plain(a).part["privileges"]; got != "CapEff:0000000000000000\nNoNewPrivs:0" {
		t.Errorf("of a user, with --new-privileges: %q", got)
	}
	expect(t, a.exec(t, a.still(), "grep CapEff /proc/self/status | cut -f2", "-u", "1000"), 0, "0000000000000000")
}
