package foreign

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTheAgentIsInstalledInDebian does in a Debian with systemd, as its installer makes
// it, what `strata agent install` says that a user has to do: no agent of anybody's is
// there before.
func TestTheAgentIsInstalledInDebian(t *testing.T) {
	b := start(t)
	disk := stock(t)
	b.Run("run", "--name", "stock", "--os", "linux", "--memory", "512M", "--disk-image", disk)
	l := join(t, b, "stock")
	l.login()
	if out := b.Try("exec", "stock", "true"); out.Status != 125 || !strings.Contains(out.Stderr, "strata agent install") {
		t.Errorf("exec without an agent: %+v", out)
	}
	said := b.Run("agent", "install", "stock")
	command := regexp.MustCompile(`mount -L \S+ /mnt && sh /mnt/install\.sh && umount /mnt`).FindString(said)
	if command == "" {
		t.Fatalf("what is to be typed: %s", said)
	}
	l.types(command + "; echo status: $?\n")
	l.hears(`it is a service of systemd: strata-agent\.service`, slow)
	l.hears(`status: 0`, slow)
	began := time.Now()
	met := func() bool {
		a := show(t, b, "stock").GuestAgent
		return a != nil && a.Kind == "strata"
	}
	await(t, "the agent is met", met)
	t.Logf("the agent was met %v after it was installed", time.Since(began).Round(time.Second))
	if a := show(t, b, "stock").GuestAgent; !strings.HasPrefix(a.System, "Linux 6.1.") {
		t.Errorf("what runs inside: %+v", a)
	}
	for what, c := range map[string]struct {
		args   []string
		status int
		out    string
	}{
		"streams and status":       {[]string{"exec", "stock", "sh", "-c", "hostname; exit 7"}, 7, "stock\n"},
		"it is a service":          {[]string{"exec", "stock", "systemctl", "is-active", "strata-agent"}, 0, "active\n"},
		"it starts with systemd":   {[]string{"exec", "stock", "systemctl", "is-enabled", "strata-agent"}, 0, "enabled\n"},
		"the first one is systemd": {[]string{"exec", "stock", "cat", "/proc/1/comm"}, 0, "systemd\n"},
		"a user is another":        {[]string{"exec", "-u", "nobody", "stock", "id", "-un"}, 0, "nobody\n"},
	} {
		if out := b.Try(c.args...); out.Status != c.status || out.Stdout != c.out {
			t.Errorf("%s: %+v", what, out)
		}
	}
	tty := b.Terminal(t, 33, 77, "exec", "-it", "stock", "bash", "-c", "stty size; exit 5")
	tty.Expect("33 77")
	if status := tty.Wait(); status != 5 {
		t.Errorf("a terminal: status %d", status)
	}
	dir := t.TempDir()
	b.Run("cp", "stock:/etc/debian_version", dir)
	if text, err := os.ReadFile(filepath.Join(dir, "debian_version")); err != nil || !strings.HasPrefix(string(text), "12.") {
		t.Errorf("copied: %q, %v", text, err)
	}

	// It is met again after its own crash, which systemd notices, and after the system's
	// next start, without the CD.
	b.Try("exec", "stock", "systemctl", "kill", "--signal", "KILL", "strata-agent")
	await(t, "systemd starts it anew", func() bool {
		out := b.Try("exec", "stock", "systemctl", "show", "--property", "NRestarts", "strata-agent")
		return out.Stdout == "NRestarts=1\n"
	})
	b.Run("eject", "stock")
	b.Try("exec", "stock", "systemctl", "reboot") // which may end its own exec
	l.hears(`stock login: `, slow)
	await(t, "the agent is met after a start", func() bool { return met() && b.Try("exec", "stock", "true").Status == 0 })
	if out := b.Try("exec", "stock", "systemctl", "show", "--property", "NRestarts", "strata-agent"); out.Stdout != "NRestarts=0\n" {
		t.Errorf("after the system's start: %+v", out)
	}
	b.SignalDaemon(syscall.SIGKILL, true)
	b.StartDaemon()
	await(t, "the next daemon meets the agent", met)
	if out := b.Try("exec", "stock", "echo", "again"); out.Stdout != "again\n" {
		t.Errorf("by the next daemon: %+v", out)
	}
	b.Run("rm", "-f", "stock")
}
