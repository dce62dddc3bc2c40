package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// peerIDs is the first of the 65,536 ids of the peers' user namespace.
const peerIDs = 2_000_000_000

var serial atomic.Int64

// start compares whole commands, each with user namespace, limits and seccomp;
// strata and podman with a network and a disk of their own besides.
func (e *env) start() error {
	flags := []string{"run", "--rm", "--memory", "256M", "--cpus", "1", "--pids", "100", "busybox", "true"}
	sides := []side{{"strata run --rm busybox true", func() (float64, error) { return timed(e.strata(flags...)) }}}
	if bundle, err := e.bundle(); err == nil {
		sides = append(sides, side{"runc run", func() (float64, error) { return timed(runc(bundle)) }})
	} else {
		fmt.Println("  runc:", err)
	}
	if podman, err := e.podman(); err == nil {
		sides = append(sides, side{"podman run --rm", func() (float64, error) { return timed(podman()) }})
	} else {
		fmt.Println("  podman:", err)
	}
	return compare(e.runs, "ms", sides...)
}

// parallel compares 100 at once.
func (e *env) parallel() error {
	const n = 100
	all := func(command func() *exec.Cmd) (float64, error) {
		begun := time.Now()
		var wait sync.WaitGroup
		errs := make(chan error, n)
		for range n {
			wait.Go(func() {
				if _, err := timed(command()); err != nil {
					errs <- err
				}
			})
		}
		wait.Wait()
		close(errs)
		return float64(time.Since(begun).Microseconds()) / 1000, <-errs
	}
	sides := []side{{"100 strata run --rm", func() (float64, error) {
		return all(func() *exec.Cmd { return e.strata("run", "--rm", "busybox", "true") })
	}}}
	if bundle, err := e.bundle(); err == nil {
		sides = append(sides, side{"100 runc run", func() (float64, error) {
			return all(func() *exec.Cmd { return runc(bundle) })
		}})
	} else {
		fmt.Println("  runc:", err)
	}
	return compare(3, "ms", sides...)
}

func runc(bundle string) *exec.Cmd {
	return exec.Command("runc", "run", "--bundle", bundle, fmt.Sprintf("stbench-%d-%d", os.Getpid(), serial.Add(1)))
}

// tree makes the root that the peers run: the same static busybox.
func (e *env) tree() (string, error) {
	root := filepath.Join(e.work, "tree")
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	for _, dir := range []string{"bin", "proc", "sys", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return "", err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("cp", busybox, filepath.Join(root, "bin", "busybox")).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	if err := os.Symlink("busybox", filepath.Join(root, "bin", "true")); err != nil {
		return "", err
	}
	return root, nil
}

// bundle makes an OCI bundle: user namespace, limits, the default seccomp profile.
func (e *env) bundle() (string, error) {
	if _, err := exec.LookPath("runc"); err != nil {
		return "", fmt.Errorf("not installed")
	}
	dir := filepath.Join(e.work, "bundle")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tree, err := e.tree()
	if err != nil {
		return "", err
	}
	root := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if out, err := exec.Command("cp", "-a", tree, root).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	if out, err := exec.Command("chown", "-R", fmt.Sprintf("%d:%d", peerIDs, peerIDs), root).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	if out, err := exec.Command("runc", "spec", "--bundle", dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("runc spec: %w: %s", err, out)
	}
	return dir, configure(filepath.Join(dir, "config.json"))
}

func configure(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	spec.Process.Terminal = false
	spec.Process.Args = []string{"/bin/true"}
	spec.Root.Readonly = false
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: peerIDs, Size: 65536}}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids, ids
	memory, pids, quota, period := int64(256<<20), int64(100), int64(100_000), uint64(100_000)
	spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	spec.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	if spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(&spec); err != nil {
		return err
	}
	// Debian's runc is older than some of the profile's calls: it skips names it does not know.
	if data, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// podman imports the same tree and returns how to run it.
func (e *env) podman() (func() *exec.Cmd, error) {
	if _, err := exec.LookPath("podman"); err != nil {
		return nil, fmt.Errorf("not installed")
	}
	tree, err := e.tree()
	if err != nil {
		return nil, err
	}
	store := []string{"--root", filepath.Join(e.work, "podman"), "--runroot", filepath.Join(e.work, "podman-run"), "--runtime", "runc", "--cgroup-manager", "cgroupfs"}
	tar := filepath.Join(e.work, "tree.tar")
	if out, err := exec.Command("tar", "-C", tree, "-cf", tar, ".").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	if out, err := exec.Command("podman", append(store, "import", tar, "bench")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("import: %w: %s", err, strings.TrimSpace(string(out)))
	}
	run := func() *exec.Cmd {
		return exec.Command("podman", append(store, "run", "--rm", "--memory", "256m", "--cpus", "1", "--pids-limit", "100", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "bench", "/bin/true")...)
	}
	if out, err := run().CombinedOutput(); err != nil {
		return nil, fmt.Errorf("run: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return run, nil
}
