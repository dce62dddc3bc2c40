package contract

import (
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
)

func init() {
	promise(
		row{name: "system-boots", test: systemBoots},
		row{name: "system-stops", test: systemStops},
	)
}

// booted returns the name of a Debian with systemd that has booted, for this row alone.
func booted(t *testing.T, a at) string {
	t.Helper()
	name := a.shared.system.of(t, a)
	until(t, "it is ready", a.boot(60*time.Second), func() bool { return a.show(t, name).Ready })
	return name
}

func systemBoots(t *testing.T, a at) {
	name := booted(t, a)
	if out := a.Try("exec", name, "systemctl", "is-system-running"); strings.TrimSpace(out.Stdout) != "running" {
		t.Errorf("systemctl says %q\n%s", out.Stdout, a.Try("exec", name, "systemctl", "--failed", "--no-pager").Stdout)
	}
	expect(t, a.Try("exec", name, "cat", "/proc/1/comm"), 0, "systemd")
	says(t, a.Run("exec", name, "systemctl", "list-units", "--type=service", "--no-pager"), "systemd-journald.service")
	expect(t, a.Try("exec", name, "hostname"), 0, name)
	says(t, a.Run("exec", name, "systemd-run", "--wait", "--pipe", "echo", "from a unit"), "from a unit")
	if a.boots() { // a kernel that leaves out, for apps, what none of their programs can use
		expect(t, a.Try("exec", name, "cat", "/sys/kernel/tracing/events/sched/sched_switch/enable"), 0, "0")
	}
}

func systemStops(t *testing.T, a at) {
	name := booted(t, a)
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
