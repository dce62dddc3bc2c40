package zone_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum"
)

// systemdRoot names a root tree of a Debian with systemd. Without it the test
// builds one from the mirror.
const systemdRoot = "STRATA_TEST_SYSTEMD_ROOT"

// powerOff is what asks systemd to power off. Source: systemd(1), SIGRTMIN+4.
const powerOff = syscall.Signal(38)

func debianLayer(t *testing.T) string {
	t.Helper()
	mkfs := require.Tool(t, "mkfs.erofs")
	root := os.Getenv(systemdRoot)
	if root == "" {
		tool := require.Tool(t, "mmdebstrap")
		root = filepath.Join(t.TempDir(), "debian")
		text, err := exec.Command(tool, "--variant=minbase", "--include=systemd,systemd-sysv,dbus", "bookworm", root).CombinedOutput()
		require.Host(t, "debian-mirror", err == nil, string(text))
	}
	image := filepath.Join(t.TempDir(), "debian.erofs")
	if text, err := exec.Command(mkfs, image, root).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v\n%s", err, text)
	}
	return image
}

// inside runs a command in a live zone.
func inside(t *testing.T, live stratum.Live, args ...string) (stdout string, status int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "client"), os.NewFile(uintptr(fds[1]), "program")
	defer ours.Close()
	p := stratum.Process{Args: args, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}
	if err := live.Exec(t.Context(), p, theirs); err != nil {
		t.Fatalf("exec %q: %v", args, err)
	}
	theirs.Close()
	for frames := stream.NewReader(ours); ; {
		kind, payload, err := frames.Next()
		if err != nil {
			t.Fatalf("exec %q: %v", args, err)
		}
		switch kind {
		case stream.Stdout, stream.Stderr:
			stdout += string(payload)
		case stream.Exit:
			ended, _ := stream.ParseExit(payload)
			return strings.TrimSpace(stdout), int(ended.Status)
		}
	}
}

func TestSystemd(t *testing.T) {
	if testing.Short() && os.Getenv(systemdRoot) == "" {
		t.Skip("it takes a minute to build a Debian")
	}
	r := newRoot(t)
	r.layer = debianLayer(t)
	p := r.plan(t)
	p.System, p.Main = true, stratum.Process{Args: []string{"/sbin/init"}}
	p.Hostname = "deb"
	p.Files = []stratum.File{{Path: "/etc/hostname", Data: []byte("deb\n")}, {Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost deb\n")}, {Path: "/etc/resolv.conf", Data: []byte("nameserver 10.0.0.1\n")}}
	ctx, cancel := context.WithTimeout(t.Context(), require.Patience(2*time.Minute))
	defer cancel()
	began := time.Now()
	live, err := r.driver.Start(ctx, p, stratum.StartOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		live.Kill(context.Background())
		live.Wait(context.Background())
		if _, err := r.driver.Clean(context.Background(), p.ID); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-live.Ready():
	case <-time.After(require.Patience(30 * time.Second)):
		t.Error("not ready")
	}
	t.Logf("ready after %s", time.Since(began))
	log := func() {
		text, _ := os.ReadFile(filepath.Join(p.Log.Dir, "log"))
		t.Logf("console: %s", text)
	}
	state, status := inside(t, live, "systemctl", "is-system-running", "--wait")
	if state != "running" || status != 0 {
		failed, _ := inside(t, live, "systemctl", "--failed", "--no-pager")
		journal, _ := inside(t, live, "journalctl", "-b", "-p", "warning", "--no-pager")
		t.Errorf("the system is %s (%d)\n%s\n%s", state, status, failed, journal)
		log()
	}
	for _, extra := range strings.Split(os.Getenv("STRATA_TEST_INSIDE"), ";") {
		if extra != "" {
			out, _ := inside(t, live, "sh", "-c", extra)
			t.Logf("%s\n%s", extra, out)
		}
	}
	if got, _ := inside(t, live, "hostname"); got != "deb" {
		t.Errorf("the hostname is %q", got)
	}
	if got, status := inside(t, live, "systemd-run", "--quiet", "--wait", "--pipe", "-p", "PrivateTmp=yes", "-p", "ProtectSystem=strict", "echo", "from a unit"); got != "from a unit" || status != 0 {
		t.Errorf("a transient unit: %q, %d", got, status)
	}
	began = time.Now()
	if err := live.Signal(ctx, powerOff); err != nil {
		t.Fatal(err)
	}
	e, err := live.Wait(ctx)
	if err != nil || e.Crash != "" || e.OOM || e.Status != 0 || e.Signal != 0 {
		t.Errorf("Wait = %+v, %v", e, err)
	}
	took := time.Since(began)
	t.Logf("stopped after %s with %+v", took, e)
	if took > require.Patience(5*time.Second) {
		log()
		t.Errorf("the stop took %s", took)
	}
}
