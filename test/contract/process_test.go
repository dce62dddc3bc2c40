package contract

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/test/bed"
)

func init() {
	promise(
		row{"exit-status", exitStatus},
		row{"death-by-signal", deathBySignal},
		row{"command-not-found", commandNotFound},
		row{"command-not-executable", commandNotExecutable},
		row{"output-apart", outputApart},
		row{"output-binary", outputBinary},
		row{"stdin-end", stdinEnd},
		row{"tty", tty},
		row{"environment", environmentVariables},
		row{"workdir", workdir},
		row{"user", user},
		row{"hostname", hostname},
		row{"exec-inside", execInside},
		row{"signal-forwarded", signalForwarded},
		row{"isolation", isolation},
		row{"no-privileges", noPrivileges},
	)
}

func exitStatus(t *testing.T, a at) {
	some := []int{0, 1, 42, 124, 125, 126, 127, 128, 137, 255}
	if a.boots() {
		some = []int{0, 1, 126, 255}
	}
	for _, status := range some {
		expect(t, a.sh(t, fmt.Sprintf("exit %d", status)), status, "")
	}
	for status := range 256 {
		if out := a.exec(t, a.still(), fmt.Sprintf("exit %d", status)); out.Status != status {
			t.Errorf("exec: exit status %d; want %d\n%s", out.Status, status, out.Stderr)
		}
	}
}

func deathBySignal(t *testing.T, a at) {
	some := []int{1, 6, 9, 11, 15}
	if a.boots() {
		some = []int{9, 11}
	}
	for _, signal := range some {
		name := a.name(t)
		expect(t, a.run("--name", name, "busybox", "sh", "-c", fmt.Sprintf("kill -%d $$", signal)), 128+signal, "")
		if exit := a.show(t, name).Exit; exit == nil || exit.Signal != signal || exit.Status != 128+signal || exit.OOM {
			t.Errorf("signal %d: show says %+v", signal, exit)
		}
	}
	expect(t, a.exec(t, a.still(), "kill -9 $$"), 137, "")
}

func commandNotFound(t *testing.T, a at) {
	name := a.still()
	for program, words := range map[string]string{"no-such-program": "not found", "/no/such/program": "no such file"} {
		out := a.run("--rm", "busybox", program)
		expect(t, out, 127, "")
		says(t, out.Stderr, program, words)
		out = a.Try("exec", name, program)
		expect(t, out, 127, "")
		says(t, out.Stderr, program, words)
	}
}

func commandNotExecutable(t *testing.T, a at) {
	name := a.still()
	for _, program := range []string{"/etc/passwd", "/etc"} {
		out := a.run("--rm", "busybox", program)
		expect(t, out, 126, "")
		says(t, out.Stderr, program)
		expect(t, a.Try("exec", name, program), 126, "")
	}
}

func outputApart(t *testing.T, a at) {
	line := "for i in 1 2 3; do echo out$i; echo err$i >&2; done"
	check := func(out bed.Output) {
		t.Helper()
		if out.Status != 0 || out.Stdout != "out1\nout2\nout3\n" || out.Stderr != "err1\nerr2\nerr3\n" {
			t.Errorf("status %d, output %q, error %q", out.Status, out.Stdout, out.Stderr)
		}
	}
	check(a.sh(t, line))
	check(a.exec(t, a.still(), line))
}

func outputBinary(t *testing.T, a at) {
	data := make([]byte, 10<<20)
	rand.Read(data)
	name := a.still()
	for what, args := range map[string][]string{
		"run":  {"run", "--stratum", a.stratum, "--rm", "-i", "busybox"},
		"exec": {"exec", "-i", name},
	} {
		out := a.Feed(bytes.NewReader(data), slices.Concat(args, []string{"cat"})...)
		if out.Status != 0 || out.Stdout != string(data) {
			t.Errorf("%s: status %d, %d bytes of standard output\n%s", what, out.Status, len(out.Stdout), out.Stderr)
		}
		out = a.Feed(bytes.NewReader(data), slices.Concat(args, []string{"sh", "-c", "cat >&2"})...)
		if out.Status != 0 || out.Stderr != string(data) || out.Stdout != "" {
			t.Errorf("%s: status %d, %d bytes of standard error", what, out.Status, len(out.Stderr))
		}
	}
}

func stdinEnd(t *testing.T, a at) {
	out := a.Feed(strings.NewReader("four"), "run", "--stratum", a.stratum, "--rm", "-i", "busybox", "wc", "-c")
	expect(t, out, 0, "4")
	out = a.Feed(strings.NewReader("unseen"), "run", "--stratum", a.stratum, "--rm", "busybox", "wc", "-c")
	expect(t, out, 0, "0")
	name := a.still()
	expect(t, a.Feed(strings.NewReader("four"), "exec", "-i", name, "wc", "-c"), 0, "4")
	expect(t, a.Feed(strings.NewReader("unseen"), "exec", name, "wc", "-c"), 0, "0")
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
	name := a.name(t)
	out := a.run("--rm", "--name", name, "-e", "A=1", "-e", "B=two words", "busybox", "sh", "-c", `echo "$A $B $HOSTNAME $HOME"; echo $PATH`)
	if out.Status != 0 || !strings.HasPrefix(out.Stdout, "1 two words "+name+" /root\n") || !strings.Contains(out.Stdout, "/bin") {
		t.Errorf("status %d, output %q\n%s", out.Status, out.Stdout, out.Stderr)
	}
	expect(t, a.exec(t, a.still(), "echo $PATH"), 0, stillPath)
	expect(t, a.exec(t, a.still(), "echo $A$B$C", "-e", "B=3", "-e", "C=4"), 0, "134")
}

func workdir(t *testing.T, a at) {
	expect(t, a.sh(t, "pwd"), 0, "/")
	expect(t, a.sh(t, "pwd", "-w", "/made/on/demand"), 0, "/made/on/demand")
	name := a.still()
	begins(t, a, "in /tmp")
	expect(t, a.exec(t, name, "pwd"), 0, "/tmp")
	expect(t, a.exec(t, name, "pwd", "-w", "/etc"), 0, "/etc")
}

// begins waits until the main program of the still environment has said words.
func begins(t *testing.T, a at, words string) {
	t.Helper()
	until(t, "its main program says "+words, 10*time.Second, func() bool { return strings.Contains(a.Run("logs", a.still()), words) })
}

func user(t *testing.T, a at) {
	begins(t, a, "user 0:0")
	out := a.sh(t, "id -u; id -g; touch /etc/x 2>/dev/null && echo wrote; echo out > /dev/stdout; echo err > /dev/stderr", "-u", "1000")
	expect(t, out, 0, "1000\n0\nout")
	says(t, out.Stderr, "err")
	if out := a.sh(t, "id", "-u", "nobody-of-that-name"); out.Status == 0 || out.Status > 127 {
		t.Errorf("an unknown user gives status %d", out.Status)
	} else {
		says(t, out.Stderr, "nobody-of-that-name")
	}
	for given, is := range map[string]string{"1000:1001": "1000\n1001", "root": "0\n0", "65534": "65534\n65534"} {
		expect(t, a.exec(t, a.still(), "id -u; id -g", "-u", given), 0, is)
		if !a.boots() {
			expect(t, a.sh(t, "id -u; id -g", "-u", given), 0, is)
		}
	}
	expect(t, a.exec(t, a.still(), "id -un", "-u", "root"), 0, "root")
	if out := a.exec(t, a.still(), "id", "-u", "nobody-of-that-name"); out.Status == 0 {
		t.Error("exec takes an unknown user")
	}
}

func hostname(t *testing.T, a at) {
	begins(t, a, "host "+a.still())
	out := a.sh(t, "hostname; cat /etc/hostname /etc/hosts", "--hostname", "other")
	if out.Status != 0 || !strings.HasPrefix(out.Stdout, "other\nother\n") {
		t.Errorf("status %d, %q", out.Status, out.Stdout)
	}
	says(t, out.Stdout, "127.0.0.1", "localhost", "\tother")
}

func execInside(t *testing.T, a at) {
	name := a.start(t, "echo mark > /tmp/mark; exec sleep 1000")
	until(t, "the main program runs", 10*time.Second, func() bool { return a.exec(t, name, "cat /tmp/mark").Stdout == "mark\n" })
	expect(t, a.exec(t, name, "hostname"), 0, name)
	// Its processes are those of the environment: few, with the main program among them.
	out := a.exec(t, name, "ps -o pid,args")
	says(t, out.Stdout, "sleep 1000")
	// A kernel of its own has threads of its own, which ps shows in brackets.
	if n := strings.Count(out.Stdout, "\n") - strings.Count(out.Stdout, "["); n > 8 {
		t.Errorf("exec sees %d processes:\n%s", n, out.Stdout)
	}
	expect(t, a.exec(t, name, "ip -4 -o addr show eth0 | grep -c "+a.show(t, name).Network.IPv4), 0, "1")
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

func signalForwarded(t *testing.T, a at) {
	line := `trap 'echo got usr1; exit 3' USR1; trap 'echo got int; exit 4' INT; echo up; while :; do sleep 0.05; done`
	name := a.start(t, line)
	until(t, "it is up", 10*time.Second, func() bool { return strings.Contains(a.Try("logs", name).Stdout, "up") })
	a.Run("kill", "-s", "USR1", name)
	expect(t, a.Try("wait", name), 0, "3")
	says(t, a.Run("logs", name), "got usr1")

	ctx, cancel := context.WithTimeout(t.Context(), bed.Patience)
	defer cancel()
	cmd := a.Command(ctx, "run", "--stratum", a.stratum, "--rm", "--name", a.name(t), "busybox", "sh", "-c", line)
	var out bytes.Buffer
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 256)
	for !strings.Contains(out.String(), "up") {
		n, err := pipe.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			t.Fatalf("it never came up: %v", err)
		}
	}
	cmd.Process.Signal(syscall.SIGINT)
	out.ReadFrom(pipe)
	cmd.Wait()
	if cmd.ProcessState.ExitCode() != 4 || !strings.Contains(out.String(), "got int") {
		t.Errorf("exit status %d, output %q; want 4 and the trap's words", cmd.ProcessState.ExitCode(), out.String())
	}
}

func isolation(t *testing.T, a at) {
	one, two := a.start(t, "exec sleep 1001"), a.still()
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

func noPrivileges(t *testing.T, a at) {
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
	// The capabilities are those of the OCI default.
	out := a.sh(t, line+"grep -E '^(NoNewPrivs|Seccomp|CapBnd):' /proc/self/status | tr -d '\\t'")
	expect(t, out, 0, "CapBnd:00000000a80425fb\nNoNewPrivs:1\nSeccomp:2")
	expect(t, a.sh(t, "grep -E '^NoNewPrivs:' /proc/self/status | tr -d '\\t\\n'", "--new-privileges"), 0, "NoNewPrivs:0")
	expect(t, a.exec(t, a.still(), "grep CapEff /proc/self/status | cut -f2", "-u", "1000"), 0, "0000000000000000")
	if !a.boots() {
		expect(t, a.sh(t, "grep CapEff /proc/self/status | cut -f2", "-u", "1000"), 0, "0000000000000000")
	}
}
