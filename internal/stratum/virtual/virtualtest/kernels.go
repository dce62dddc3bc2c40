package virtualtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/require"
)

// stores are those of kernels, by the name of the package that each has, for all roots of
// a test process: to take a package in takes seconds.
type stores struct {
	mu   sync.Mutex
	open map[string]opened
}

// opened is a store, and where it is.
type opened struct {
	*kernel.Store
	dir string
}

var kernels = stores{open: map[string]opened{}}

func (s *stores) of(t testing.TB, name string) opened {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.open[name]; ok {
		return have
	}
	content, err := os.Open(KernelPackage(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	dir, err := os.MkdirTemp("", "strata-test-kernels")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o711)
	store, err := kernel.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.open[name] = opened{store, dir}
	if _, err := store.Import(context.Background(), content, kernel.ImportOptions{Source: filepath.Base(content.Name())}, nil); err != nil {
		t.Fatal(err)
	}
	return s.open[name]
}

func (s *stores) remove() {
	for _, o := range s.open {
		os.RemoveAll(o.dir)
	}
}

// KernelPackage returns Debian's package of a kernel, which tests fetch from the mirror
// once per machine.
func KernelPackage(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "strata-test-"+name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	have := func() []string { l, _ := filepath.Glob(filepath.Join(dir, "linux-image-*.deb")); return l }
	if found := have(); len(found) > 0 {
		return found[0]
	}
	require.Tool(t, "apt-get")
	text, err := exec.Command("apt-cache", "depends", name).Output()
	_, rest, _ := strings.Cut(string(text), "Depends: ")
	newest, _, _ := strings.Cut(rest, "\n")
	require.Host(t, "debian-mirror", err == nil && strings.HasPrefix(newest, "linux-image-"), "apt knows no package "+name)
	cmd := exec.Command("apt-get", "download", strings.TrimSpace(newest))
	cmd.Dir = dir
	text, err = cmd.CombinedOutput()
	found := have()
	require.Host(t, "debian-mirror", err == nil && len(found) > 0, "a kernel cannot be fetched: "+string(text))
	return found[0]
}
