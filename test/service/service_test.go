// Package service proves that strata as an installed service of systemd may be
// stopped, restarted and killed under running environments. It installs units on
// the machine that it runs on, so it runs only where STRATA_TEST_SERVICE=yes says
// that the machine is there for this: scripts/test-v2 has one.
package service

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
)

const units = "/run/systemd/system"

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		journal, _ := exec.Command("journalctl", "-u", "strata.service", "-n", "30", "--no-pager").Output()
		t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, journal)
	}
	return strings.TrimSpace(string(out))
}

func show(t *testing.T, name string) (env api.Environment) {
	t.Helper()
	text := run(t, "strata", "show", name, "--json")
	text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if err := json.Unmarshal([]byte(text), &env); err != nil {
		t.Fatal(err)
	}
	return env
}

func mainPID(t *testing.T) string {
	return run(t, "systemctl", "show", "-P", "MainPID", "strata.service")
}

// install puts programs and units where `make install` would.
func install(t *testing.T) {
	built := os.Getenv("STRATA_BIN")
	for name, dir := range map[string]string{
		"strata": "/usr/bin", "stratad": "/usr/bin",
		"strata-keeper": "/usr/lib/strata", "strata-agent": "/usr/lib/strata", "strata-vmagent": "/usr/lib/strata", "strata-volume": "/usr/lib/strata",
	} {
		run(t, "install", "-D", "-m", "0755", filepath.Join(built, name), filepath.Join(dir, name))
	}
	for _, name := range []string{"strata.service", "strata.socket"} {
		text, err := os.ReadFile("../../units/" + name)
		if err == nil {
			os.MkdirAll(units, 0o755)
			err = os.WriteFile(filepath.Join(units, name), []byte(strings.ReplaceAll(string(text), "@PREFIX@", "/usr")), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	run(t, "groupadd", "--force", "--system", "strata")
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "start", "strata.socket")
	t.Cleanup(func() {
		exec.Command("strata", "system", "reset", "--force").Run()
		exec.Command("systemctl", "stop", "strata.socket", "strata.service").Run()
	})
}

func TestEnvironmentsOutliveTheServicesEnds(t *testing.T) {
	require.Root(t)
	require.Host(t, "systemd-service", os.Getenv("STRATA_TEST_SERVICE") == "yes", "this machine is not there for installing services")
	install(t)
	run(t, "strata", "run", "-d", "--name", "one", "--memory", "64M", "busybox", "sleep", "100000") // starts the service by its socket
	before := show(t, "one")
	for _, end := range []struct{ name, by string }{
		{"restarted", "systemctl restart strata.service"},
		{"stopped and started", "systemctl stop strata.service strata.socket && systemctl start strata.socket"},
		{"killed", "kill -9 $(systemctl show -P MainPID strata.service)"},
		{"restarted once more", "systemctl restart strata.service"},
	} {
		pid := mainPID(t)
		run(t, "sh", "-c", end.by)
		for deadline := time.Now().Add(require.Patience(10 * time.Second)); exec.Command("strata", "info").Run() != nil || mainPID(t) == pid; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: no new daemon answers\n%s", end.name, run(t, "journalctl", "-u", "strata.service", "-n", "30", "--no-pager"))
			}
		}
		if now := show(t, "one"); now.State != api.Running || now.PID != before.PID || now.KeeperPID != before.KeeperPID {
			t.Errorf("%s: pid %d then %d, keeper %d then %d, %s", end.name, before.PID, now.PID, before.KeeperPID, now.KeeperPID, now.State)
		}
		run(t, "strata", "exec", "one", "true")
		run(t, "strata", "run", "--rm", "busybox", "true")
	}
	run(t, "strata", "rm", "-f", "one")
}
