package agent_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/require"
)

// testMap is a user range that no environment has.
var testMap = mount.IDMap{Base: 9 * mount.IDs}

// rig starts the agent as PID 1 as a keeper does, without one.
type rig struct {
	t      testing.TB
	agent  string
	maps   mount.IDMaps
	layers *mount.Layers
	pool   *disk.Pool
	layer  string
	dir    string
	n      int
}

func newRig(t testing.TB) *rig {
	require.Root(t)
	require.Tool(t, "mkfs.erofs")
	require.Tool(t, "mkfs.ext4")
	r := &rig{t: t, dir: t.TempDir()}
	r.agent = buildAgent(t)
	r.layer = busyboxLayer(t, nil)
	var err error
	if r.layers, err = mount.OpenLayers(filepath.Join(r.dir, "layers")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.layers.UnmountAll(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if r.pool, err = disk.OpenPool(context.Background(), filepath.Join(r.dir, "disks"), disk.Options{Size: 64 << 20}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.pool.Close() })
	return r
}

func buildAgent(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("STRATA_BIN"); dir != "" {
		return filepath.Join(dir, "strata-agent")
	}
	out := filepath.Join(t.TempDir(), "strata-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "../../cmd/strata-agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, text)
	}
	return out
}

// busyboxLayer makes an EROFS image of a busybox root; change may alter the tree.
func busyboxLayer(t testing.TB, change func(root string)) string {
	t.Helper()
	busybox := require.Tool(t, "busybox")
	root := t.TempDir()
	for _, dir := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "root"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(filepath.Join(root, "tmp"), 0o1777)
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755)
	for _, name := range []string{"sh", "true", "cat", "id", "ls", "sleep", "ps", "mount", "hostname", "stty", "readlink", "stat", "tty", "kill", "grep", "env", "echo", "touch", "dd", "head"} {
		os.Symlink("busybox", filepath.Join(root, "bin", name))
	}
	os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"), 0o644)
	os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nalice:x:1000:\nwheel:x:10:root,alice\n"), 0o644)
	if change != nil {
		change(root)
	}
	image := filepath.Join(t.TempDir(), "busybox.erofs")
	if text, err := exec.Command("mkfs.erofs", image, root).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.erofs: %v\n%s", err, text)
	}
	return image
}

// root returns a fresh writable root.
func (r *rig) root(ctx context.Context) *mount.Tree {
	r.n++
	path := filepath.Join(r.dir, "disk"+strconv.Itoa(r.n))
	if err := r.pool.Create(ctx, path, 0); err != nil {
		r.t.Fatal(err)
	}
	diskTree, err := r.pool.Mount(ctx, path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer diskTree.Close()
	layer, err := r.layers.Get(ctx, "sha256:"+filepath.Base(filepath.Dir(r.layer)), r.layer)
	if err != nil {
		r.t.Fatal(err)
	}
	defer layer.Close()
	users, err := r.maps.Get(ctx, testMap)
	if err != nil {
		r.t.Fatal(err)
	}
	defer users.Close()
	tree, err := mount.Overlay(ctx, mount.OverlaySpec{Lowers: []*mount.Tree{layer}, Disk: diskTree, Map: testMap, Users: users})
	if err != nil {
		r.t.Fatal(err)
	}
	return tree
}

// zone is one run of the agent as PID 1.
type zone struct {
	r        *rig
	sync     *os.File
	process  *os.Process
	out, err *output
	messages []message
}

type message struct {
	wire.Message
	file *os.File
}

type output struct {
	text []byte
	done chan struct{}
}

func collect(f *os.File) *output {
	o := &output{done: make(chan struct{})}
	go func() {
		defer close(o.done)
		defer f.Close()
		o.text, _ = io.ReadAll(f)
	}()
	return o
}

func (o *output) String() string { <-o.done; return string(o.text) }

// ready returns an Init that is like what a zone of kind app has.
func ready(args ...string) *spec.Init {
	return &spec.Init{
		Hostname: "inside", Root: spec.FD + 1,
		Main:    &wire.Process{Args: args, Env: []string{"PATH=/bin"}, Capabilities: []int{0, 1, 3, 5, 6, 7}, NoNewPrivs: true},
		Devices: []string{"null", "zero", "full", "random", "urandom", "tty"},
		Links:   [][2]string{{"fd", "/proc/self/fd"}, {"ptmx", "pts/ptmx"}},
		Mask:    []string{"/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware"}, Protect: []string{"/proc/sys", "/proc/sysrq-trigger"},
		Files: []spec.File{{Path: "/etc/hostname", Data: []byte("inside\n"), Bind: true}},
		Keep:  []int{5},
	}
}

// start runs s up to where the agent waits for go.
func (r *rig) start(s *spec.Init, more ...*os.File) *zone {
	t := r.t
	t.Helper()
	tree := r.root(context.Background())
	defer tree.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := unix.MemfdCreate("spec", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	specFile := os.NewFile(uintptr(mem), "spec")
	defer specFile.Close()
	specFile.Write(text)
	specFile.Seek(0, 0)
	theirs := os.NewFile(uintptr(pair[1]), "sync")
	defer theirs.Close()
	null, _ := os.OpenFile("/dev/null", os.O_RDWR, 0)
	defer null.Close()
	z := &zone{r: r, sync: os.NewFile(uintptr(pair[0]), "sync")}
	outR, outW, _ := os.Pipe()
	errR, errW, _ := os.Pipe()
	defer outW.Close()
	defer errW.Close()
	outW.Chown(int(testMap.Base), int(testMap.Base))
	errW.Chown(int(testMap.Base), int(testMap.Base))
	files := append([]*os.File{null, outW, errW, theirs, specFile, tree.File()}, more...)
	agent, err := os.Open(r.agent) // its folder is closed to the zone's root
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	files = append(files, agent)
	z.process, err = os.StartProcess("/proc/self/fd/"+strconv.Itoa(len(files)-1), []string{"strata-agent", "init"}, &os.ProcAttr{Dir: "/", Env: []string{}, Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
			UidMappings: testMap.Mappings(), GidMappings: testMap.Mappings(), GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{}, Setsid: true,
		}})
	if err != nil {
		t.Fatal(err)
	}
	z.out, z.err = collect(outR), collect(errR)
	t.Cleanup(func() { z.process.Kill(); z.process.Wait(); z.sync.Close() })
	return z
}

// next reads the next message; ok is false at the end.
func (z *zone) next() (m message, ok bool) {
	z.r.t.Helper()
	z.sync.SetReadDeadline(time.Now().Add(require.Patience(10 * time.Second)))
	buf, rights := make([]byte, wire.MaxMessage), make([]byte, 64)
	tv := unix.NsecToTimeval(int64(require.Patience(10 * time.Second)))
	unix.SetsockoptTimeval(int(z.sync.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	n, nr, _, _, err := unix.Recvmsg(int(z.sync.Fd()), buf, rights, unix.MSG_CMSG_CLOEXEC)
	runtime.KeepAlive(z)
	if err != nil || n == 0 {
		return m, false
	}
	if err := json.Unmarshal(buf[:n], &m.Message); err != nil {
		z.r.t.Fatalf("%v: %s", err, buf[:n])
	}
	if nr > 0 {
		all, _ := unix.ParseSocketControlMessage(rights[:nr])
		fds, _ := unix.ParseUnixRights(&all[0])
		m.file = os.NewFile(uintptr(fds[0]), m.Type)
	}
	return m, true
}

// goOn says go and waits for started or failed.
func (z *zone) goOn() message {
	z.r.t.Helper()
	unix.Write(int(z.sync.Fd()), []byte(`{"type":"go"}`))
	for {
		m, ok := z.next()
		if !ok {
			z.process.Kill()
			z.r.t.Fatalf("the agent ended without a word: %s", z.err)
		}
		z.messages = append(z.messages, m)
		if m.Type == wire.Started || m.Type == wire.Failed {
			return m
		}
	}
}

// end waits for the end and returns the main program's wait status.
func (z *zone) end() syscall.WaitStatus {
	z.r.t.Helper()
	var status syscall.WaitStatus
	for {
		m, ok := z.next()
		if !ok {
			break
		}
		if m.Type == wire.Ended {
			status = syscall.WaitStatus(m.Status)
		}
	}
	state, err := z.process.Wait()
	if err != nil {
		z.r.t.Fatal(err)
	}
	if want := exitStatus(status); state.ExitCode() != want {
		z.r.t.Errorf("PID 1 ended with %d; want %d", state.ExitCode(), want)
	}
	return status
}

func exitStatus(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// run starts s, waits for its end, and returns what it wrote to standard output.
func (r *rig) run(s *spec.Init, more ...*os.File) (string, syscall.WaitStatus) {
	r.t.Helper()
	z := r.start(s, more...)
	if m := z.goOn(); m.Type == wire.Failed {
		r.t.Fatalf("not started: %+v", *m.Fault)
	}
	status := z.end()
	if text := z.err.String(); text != "" {
		r.t.Logf("stderr: %s", text)
	}
	return z.out.String(), status
}

func (r *rig) sh(script string) string {
	r.t.Helper()
	out, status := r.run(ready("/bin/sh", "-c", script))
	if status != 0 {
		r.t.Errorf("sh -c %q: status %#x", script, int(status))
	}
	return strings.TrimSpace(out)
}
