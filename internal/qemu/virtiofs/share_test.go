package virtiofs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/virtiofs/serve"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// TestMain makes this program what the test needs besides: the stage that
// becomes virtiofsd, and the guest's process 1.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == serve.Command:
		os.Exit(serve.Run(os.Args))
	case len(os.Args) > 1 && os.Args[1] == takenOver:
		os.Exit(reach())
	case os.Args[0] == "/init" && os.Getpid() == 1:
		boot()
	}
	os.Exit(m.Run())
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// initramfs packs files as cpio's "newc" format has it; modes are 0755.
func initramfs(files map[string][]byte) []byte {
	var b bytes.Buffer
	entry := func(name string, mode int, data []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		b.Write(make([]byte, -b.Len()&3))
		b.Write(data)
		b.Write(make([]byte, -b.Len()&3))
	}
	for name, data := range files {
		entry(name, 0o100755, data)
	}
	entry("TRAILER!!!", 0, nil)
	return b.Bytes()
}

// kernel unpacks a kernel for guests and makes an initramfs of it with this program.
func kernel(t *testing.T) (image, initrd string) {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command(require.Tool(t, "dpkg-deb"), "-x", bed.KernelPackage(t), dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	self, err := os.Executable()
	must(t, err)
	program, err := os.ReadFile(self)
	must(t, err)
	require.Host(t, "static-test", !bytes.Contains(program[:1<<12], []byte("ld-linux")), "the test's program is dynamic: set CGO_ENABLED=0")
	files := map[string][]byte{"init": program}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		name, module := strings.CutSuffix(filepath.Base(path), ".ko")
		if err == nil && module && slices.Contains(modules, strings.ReplaceAll(name, "-", "_")) {
			files[strings.ReplaceAll(name, "-", "_")+".ko"], err = os.ReadFile(path)
		}
		return err
	})
	must(t, err)
	found, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	initrd = filepath.Join(dir, "initrd")
	must(t, os.WriteFile(initrd, initramfs(files), 0o600))
	return found[0], initrd
}

// started is a program beside QEMU, as the keeper would start it.
func started(t *testing.T, s *Share) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	path, args := s.Command(self, 3, 4)
	var said bytes.Buffer
	cmd := &exec.Cmd{Path: path, Args: args, Env: []string{}, ExtraFiles: []*os.File{s.Tree, s.Listener}, Stderr: &said}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: Namespaces}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the server said: %s", said.String())
		}
	})
	return cmd
}

// volumes are what the guest's checks expect.
func volumes(t *testing.T) map[string]Volume {
	t.Helper()
	dir := t.TempDir()
	rw, ro := filepath.Join(dir, "rw"), filepath.Join(dir, "ro")
	must(t, os.MkdirAll(filepath.Join(rw, "mounted"), 0o755), os.Mkdir(filepath.Join(rw, "open"), 0o755), os.Chmod(filepath.Join(rw, "open"), 0o1777), os.Mkdir(ro, 0o755), os.Chown(rw, 1000, 1001),
		os.WriteFile(filepath.Join(rw, "of-1234"), []byte("from outside"), 0o600), os.Chown(filepath.Join(rw, "of-1234"), 1234, 1235),
		os.WriteFile(filepath.Join(ro, "file"), []byte("read me"), 0o644),
		os.WriteFile(filepath.Join(dir, "one"), []byte("only me"), 0o644), os.Chown(filepath.Join(dir, "one"), 5, 6),
		unix.Mount("tmpfs", filepath.Join(rw, "mounted"), "tmpfs", 0, "size=64k"))
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(rw, "mounted"), unix.MNT_DETACH) })
	must(t, os.WriteFile(filepath.Join(rw, "mounted/file"), []byte("below"), 0o644))
	return map[string]Volume{
		"rw": {Tag: "rw", Source: rw}, "ro": {Tag: "ro", Source: ro, ReadOnly: true},
		"one": {Tag: "one", Source: filepath.Join(dir, "one")}, "roone": {Tag: "roone", Source: filepath.Join(ro, "file"), ReadOnly: true},
	}
}

// programs are what can serve: this host's virtiofsd, and strata's own.
func programs(t *testing.T) []Program {
	t.Helper()
	require.Root(t)
	p, err := Find(t.Context())
	require.Host(t, "virtiofsd", err == nil, fmt.Sprint(err))
	own := filepath.Join(t.TempDir(), serve.Own)
	cmd := exec.Command(require.Tool(t, "go"), "build", "-trimpath", "-o", own, "github.com/strata-project/strata/cmd/"+serve.Own)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return []Program{p, {Path: own, Kind: Own}}
}

func TestAGuestSeesItsVolumes(t *testing.T) {
	require.Machines(t)
	for _, p := range programs(t) {
		t.Run(p.Kind.String(), func(t *testing.T) { guestSees(t, p) })
	}
}

func guestSees(t *testing.T, p Program) {
	program := require.Tool(t, "qemu-system-x86_64")
	image, initrd := kernel(t)
	all := volumes(t)
	run := t.TempDir()
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-accel", "tcg",
		"-M", "microvm,acpi=on,isa-serial=on,memory-backend=ram", "-cpu", "qemu64,+rdrand", "-m", "256M",
		"-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-global", "virtio-mmio.force-legacy=false",
		"-kernel", image, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 cryptomgr.notests tsc=reliable tsc_early_khz=" + strconv.Itoa(qemu.TSC()),
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	var servers []*exec.Cmd
	for tag, v := range all {
		s, err := p.Open(t.Context(), run, v)
		must(t, err)
		defer s.Close()
		if (s.File != "") != (tag == "one" || tag == "roone") {
			t.Errorf("%s: file %q", tag, s.File)
		}
		servers = append(servers, started(t, s))
		s.Tree.Close()
		s.Listener.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.QEMU)
		args = append(args, "-chardev", "socket,id="+tag+",fd="+strconv.Itoa(2+len(cmd.ExtraFiles)), "-device", "vhost-user-fs-device,chardev="+tag+",tag="+tag)
	}
	if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
		t.Error("the sockets' folder holds", left, err)
	}
	cmd.Args = append(cmd.Args, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, cmd.Start())
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said.String(), verdict+"good") {
		t.Fatalf("QEMU: %v\n%s", err, said.String())
	}
	t.Log(said.String())
	for _, server := range servers {
		ended := make(chan error, 1)
		go func() { ended <- server.Wait() }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("a server outlives its QEMU")
		}
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(all["rw"].Source, "new"), &st); err != nil || st.Uid != 4321 || st.Gid != 4322 {
		t.Errorf("a new file is %d:%d's, %v", st.Uid, st.Gid, err)
	}
	if data, err := os.ReadFile(all["one"].Source); err != nil || string(data) != "changed" {
		t.Errorf("the file holds %q, %v", data, err)
	}
}

// lists runs ls instead of virtiofsd, with a volume in place.
func lists(t *testing.T, v Volume, paths ...string) string {
	t.Helper()
	return instead(t, require.Tool(t, "ls"), v, append([]string{"-1"}, paths...)...)
}

// instead runs another program in the place of virtiofsd, and returns what it says.
func instead(t *testing.T, program string, v Volume, words ...string) string {
	t.Helper()
	s, err := Program{Path: program}.Open(t.Context(), t.TempDir(), v)
	must(t, err)
	defer s.Close()
	self, err := os.Executable()
	must(t, err)
	args := serve.Spec{Program: s.program.Path, Args: words, Tree: 3, File: s.File, Keep: 4}.Encode()
	var said bytes.Buffer
	cmd := &exec.Cmd{Path: self, Args: args, Env: []string{}, ExtraFiles: []*os.File{s.Tree, s.Listener}, Stdout: &said, Stderr: &said}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: Namespaces}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	return said.String()
}

// takenOver is the argument by which this program tries, in the place of virtiofsd, what
// one that was taken over could.
const takenOver = "taken-over"

// reach goes where virtiofsd's descriptor of its own descriptors leads, which it keeps
// when it has changed its root to the volume.
func reach() int {
	fds, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil {
		err = errors.Join(unix.Chroot(serve.Place), unix.Chdir("/"))
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for _, path := range []string{"../../sys/kernel/core_pattern", "../oom_score_adj"} {
		fd, err := unix.Openat(fds, path, unix.O_WRONLY, 0)
		fmt.Println(path+":", err)
		_ = unix.Close(fd)
	}
	// As it opens files of the volume itself.
	file, err := unix.Open("/of-1234", unix.O_PATH, 0)
	if err == nil {
		file, err = unix.Openat(fds, strconv.Itoa(file), unix.O_RDWR, 0)
	}
	if err == nil {
		_, err = unix.Write(file, []byte("FROM"))
	}
	fmt.Println("a file of the volume:", err)
	_, err = unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", sessionKey, 0)
	fmt.Println("a key of the session:", err)
	return 0
}

// sessionKey is a key that whoever started the daemon has.
const sessionKey = "strata-test"

func TestAServerThatWasTakenOverChangesNothingOfTheHosts(t *testing.T) {
	require.Root(t)
	all := volumes(t)
	self, err := os.Executable()
	must(t, err)
	runtime.LockOSThread() // for good: this thread's keys are others' no more
	_, err = unix.KeyctlJoinSessionKeyring("strata-test")
	require.Host(t, "keys", !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM), fmt.Sprint(err))
	must(t, err)
	_, err = unix.AddKey("user", sessionKey, []byte("secret"), unix.KEY_SPEC_SESSION_KEYRING)
	must(t, err)
	want := "../../sys/kernel/core_pattern: read-only file system\n../oom_score_adj: read-only file system\na file of the volume: <nil>\na key of the session: required key not available\n"
	if got := instead(t, self, all["rw"], takenOver); got != want {
		t.Errorf("it finds:\n%s", got)
	}
	if data, err := os.ReadFile(filepath.Join(all["rw"].Source, "of-1234")); err != nil || string(data) != "FROM outside" {
		t.Errorf("the file holds %q, %v", data, err)
	}
}

func TestTheServerSeesNothingElse(t *testing.T) {
	for _, p := range programs(t) {
		t.Run(p.Kind.String(), func(t *testing.T) { seesNothingElse(t, p) })
	}
}

func seesNothingElse(t *testing.T, p Program) {
	all := volumes(t)
	for _, name := range strings.Fields(lists(t, all["ro"], "/")) {
		if !slices.Contains([]string{"lib", "lib32", "lib64", "libx32", "usr", "etc", "nix", "gnu", "proc", "volume", "server"}, name) {
			t.Error("it sees", name)
		}
	}
	for _, c := range []struct{ volume, path, want string }{
		{"ro", "/etc", "ld.so.cache\n"}, {"ro", "/volume", "file\n"}, {"one", "/volume", "file\n"}, {"rw", "/volume/mounted", "file\n"}, {"ro", "/proc/self/fd", "0\n1\n2\n3\n4\n"},
	} {
		if got := lists(t, all[c.volume], c.path); got != c.want {
			t.Errorf("volume %s, %s: it sees %q, not %q", c.volume, c.path, got, c.want)
		}
	}
	s, err := p.Open(t.Context(), t.TempDir(), all["ro"])
	must(t, err)
	defer s.Close()
	cmd := started(t, s)
	s.Tree.Close()
	s.Listener.Close()
	proc := "/proc/" + strconv.Itoa(cmd.Process.Pid)
	until := time.Now().Add(20 * time.Second)
	for {
		comm, err := os.ReadFile(proc + "/comm")
		must(t, err)
		if string(comm) == "server\n" {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("it is still %s", comm)
		}
		time.Sleep(5 * time.Millisecond)
	}
	status, err := os.ReadFile(proc + "/status")
	must(t, err)
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch name {
		case "CapBnd":
			bits, err := strconv.ParseUint(value, 16, 64)
			if err != nil || bits&(1<<unix.CAP_SYS_ADMIN|1<<unix.CAP_MKNOD|1<<unix.CAP_DAC_READ_SEARCH|1<<unix.CAP_SYS_PTRACE|1<<unix.CAP_NET_ADMIN) != 0 {
				t.Error("capabilities within reach:", value, err)
			}
		case "NoNewPrivs":
			if value != "1" {
				t.Error("no_new_privs is", value)
			}
		}
	}
	for _, ns := range []string{"mnt", "pid", "net", "ipc", "uts"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		its, failed := os.Readlink(proc + "/ns/" + ns)
		must(t, err, failed)
		if own == its {
			t.Error("it shares", ns)
		}
	}
	// QEMU's end is closed: the server goes.
	s.QEMU.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("it outlives QEMU's end")
	}
}

func TestOpenRefuses(t *testing.T) {
	require.Root(t)
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	must(t, unix.Mknod(socket, unix.S_IFSOCK|0o600, 0))
	p := Program{Path: "/usr/lib/qemu/virtiofsd"}
	for source, kind := range map[string]fault.Kind{filepath.Join(dir, "missing"): fault.Missing, "relative": fault.Invalid, socket: fault.Unable, "/dev/null": fault.Unable} {
		s, err := p.Open(t.Context(), dir, Volume{Tag: "x", Source: source})
		if !fault.Is(err, kind) || s != nil {
			t.Errorf("%s: %v; want %s", source, err, kind)
		}
	}
	if _, err := p.Open(t.Context(), dir, Volume{Tag: strings.Repeat("x", 37), Source: dir}); err == nil {
		t.Error("a tag that is too long")
	}
}

func TestFindSaysWhatToInstall(t *testing.T) {
	_, err := find(t.Context(), []string{filepath.Join(t.TempDir(), "virtiofsd")})
	if !fault.Is(err, fault.Unable) || !strings.Contains(fault.All(err)[0].Hint, "qemu-system-common") {
		t.Error(err)
	}
	if p, err := findOr(t.Context(), []string{filepath.Join(t.TempDir(), "virtiofsd")}, "/x/"+serve.Own); err != nil || p != (Program{Path: "/x/" + serve.Own, Kind: Own}) {
		t.Error(p, err)
	}
	odd := filepath.Join(t.TempDir(), "virtiofsd")
	must(t, os.WriteFile(odd, []byte("#!/bin/sh\necho what\n"), 0o755))
	if _, err := find(t.Context(), []string{odd}); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "what") {
		t.Error(err)
	}
	for said, want := range map[string]Program{
		"virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright\nusing FUSE kernel interface version 7.36\n": {Version: "7.2.22"},
		"virtiofsd backend 1.4.0\n": {Version: "1.4.0", Kind: Rust},
		"virtiofsd 1.13.2\n":        {Version: "1.13.2", Kind: Rust},
	} {
		if got, ok := parseVersion(said); !ok || got != want {
			t.Errorf("%q: %+v, %v", said, got, ok)
		}
	}
}

func TestArgumentsAsWrittenDown(t *testing.T) {
	s := &Share{Tag: "v0", File: "file", program: Program{Path: "/x/virtiofsd", Kind: Rust}}
	path, args := s.Command("/a/strata-agent", 5, 6)
	want := "/a/strata-agent: strata-agent share /x/virtiofsd 5 file 6 --fd=6 --shared-dir=/volume --sandbox=chroot --cache=auto --xattr --posix-acl --announce-submounts --modcaps=-mknod --rlimit-nofile=0 --log-level=error"
	if got := path + ": " + strings.Join(args, " "); got != want {
		t.Error(got)
	}
	s.program = Program{Path: "/x/strata-volume", Kind: Own}
	if _, args = s.Command("/a/strata-agent", 5, 6); strings.Join(args, " ") != "strata-agent share /x/strata-volume 5 file 6 6" {
		t.Error(args)
	}
	s.program = Program{Path: "/x/virtiofsd"}
	_, args = s.Command("/a/strata-agent", 5, 6)
	want = "strata-agent share /x/virtiofsd 5 file 6 -f --fd=6 -o source=/volume -o sandbox=chroot -o cache=auto -o xattr -o posix_acl -o announce_submounts -o no_flock -o no_posix_lock -o modcaps=-mknod --rlimit-nofile=0 -o log_level=err"
	if got := strings.Join(args, " "); got != want {
		t.Error(got)
	}
}
