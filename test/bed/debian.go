package bed

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
)

var debianOnce sync.Map // root → *sync.Once

// Debian returns the name of a real Debian template with systemd in b. It is
// built from the mirror once per machine and day, kept as an archive in the
// machine's temporary folder for the beds that follow, and imported from there.
func Debian(t testing.TB, b *Bed) string {
	t.Helper()
	const name = "debian-systemd"
	once, _ := debianOnce.LoadOrStore(b.Places.Root, new(sync.Once))
	once.(*sync.Once).Do(func() {
		archive := filepath.Join(os.TempDir(), "strata-test-debian-systemd.tar")
		lock, err := os.OpenFile(archive+".lock", os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(archive); err == nil && time.Since(info.ModTime()) < 24*time.Hour {
			b.Run("template", "import", "--name", name, archive)
			return
		}
		require.Tool(t, "mmdebstrap")
		// The bed's daemon has no way out of its namespace: a builder in the host's
		// namespace makes the archive.
		builder := &Bed{t: t, Places: b.Places, bin: b.bin}
		builder.buildDebian(archive)
		b.Run("template", "import", "--name", name, archive)
	})
	if b.Try("template", "show", name).Status != 0 {
		require.Host(t, "debian-mirror", false, "the Debian template could not be made")
	}
	return name
}

// buildDebian runs a daemon of its own, in the host's network, to build the archive.
func (b *Bed) buildDebian(archive string) {
	b.t.Helper()
	root, err := os.MkdirTemp("", "strata")
	if err != nil {
		b.t.Fatal(err)
	}
	defer os.RemoveAll(root)
	run := func(args ...string) {
		b.t.Helper()
		cmd := exec.Command(b.Program("strata"), append([]string{"--root", root}, args...)...)
		cmd.Env = append(os.Environ(), "STRATA_AUTOSTART=no")
		if out, err := cmd.CombinedOutput(); err != nil {
			b.t.Errorf("strata %v: %v\n%s", args, err, out)
		}
	}
	daemon := exec.Command(b.Program("stratad"), "--root", root)
	if err := daemon.Start(); err != nil {
		b.t.Fatal(err)
	}
	defer func() { daemon.Process.Signal(syscall.SIGTERM); daemon.Wait() }()
	for deadline := time.Now().Add(require.Patience(20 * time.Second)); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		probe := exec.Command(b.Program("strata"), "--root", root, "info")
		probe.Env = append(os.Environ(), "STRATA_AUTOSTART=no")
		if probe.Run() == nil {
			break
		}
	}
	run("template", "build", "debian:bookworm", "--variant", "systemd", "--name", "debian-systemd")
	run("template", "export", "-o", archive+".new", "debian-systemd")
	run("system", "reset", "--force")
	if err := os.Rename(archive+".new", archive); err != nil {
		b.t.Error(err)
	}
}
