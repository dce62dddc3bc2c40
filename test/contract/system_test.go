package contract

import (
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

func init() {
	promise(
		row{"system-boots", systemBoots},
		row{"system-stops", systemStops},
	)
}

// debian makes the Debian template with systemd, once per bed.
func debian(t *testing.T, a at) string { return bed.Debian(t, a.Bed) }

func systemBoots(t *testing.T, a at) {
	name := a.name(t)
	if out := a.run("-d", "--name", name, debian(t, a)); out.Status != 0 {
		t.Fatalf("exit status %d\n%s", out.Status, out.Stderr)
	}
	until(t, "it is ready", a.boot(60*time.Second), func() bool { return a.show(t, name).Ready })
	if out := a.Try("exec", name, "systemctl", "is-system-running"); strings.TrimSpace(out.Stdout) != "running" {
		t.Errorf("systemctl says %q\n%s", out.Stdout, a.Try("exec", name, "systemctl", "--failed", "--no-pager").Stdout)
	}
	expect(t, a.Try("exec", name, "cat", "/proc/1/comm"), 0, "systemd")
	says(t, a.Run("exec", name, "systemctl", "list-units", "--type=service", "--no-pager"), "systemd-journald.service")
	expect(t, a.Try("exec", name, "hostname"), 0, name)
	says(t, a.Run("exec", name, "systemd-run", "--wait", "--pipe", "echo", "from a unit"), "from a unit")
}

func systemStops(t *testing.T, a at) {
	name := a.name(t)
	if out := a.run("-d", "--name", name, debian(t, a)); out.Status != 0 {
		t.Fatalf("exit status %d\n%s", out.Status, out.Stderr)
	}
	until(t, "it is ready", a.boot(60*time.Second), func() bool { return a.show(t, name).Ready })
	a.Run("exec", name, "sh", "-c", `mkdir -p /etc/systemd/system
printf '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c "echo orderly > /root/end"\n' > /etc/systemd/system/mark.service
systemctl daemon-reload && systemctl start mark`)
	out := a.Try("stop", name)
	if out.Status != 0 || out.Took > require.Patience(30*time.Second) {
		t.Errorf("stop: status %d after %v\n%s", out.Status, out.Took, out.Stderr)
	}
	if exit := a.show(t, name).Exit; exit == nil || exit.Signal == 9 {
		t.Errorf("it did not end by itself: %+v", exit)
	}
	a.Run("start", name)
	until(t, "it is ready again", a.boot(60*time.Second), func() bool { return a.show(t, name).Ready })
	expect(t, a.Try("exec", name, "cat", "/root/end"), 0, "orderly")
}
