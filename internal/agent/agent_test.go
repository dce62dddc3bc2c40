package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/keeper/wire"
)

func TestAZoneRuns(t *testing.T) {
	r := newRig(t)
	if got := r.sh("hostname; cat /etc/hostname"); got != "inside\ninside" {
		t.Errorf("inside: %q", got)
	}
}

func TestPID1IsClosedToPrograms(t *testing.T) {
	r := newRig(t)
	got := r.sh("cat /proc/1/environ 2>&1; readlink /proc/1/exe || echo closed; sleep 0.1; ls /proc/1/fd | sort -n | tr '\\n' ' '")
	if !strings.Contains(got, "Permission denied") || !strings.Contains(got, "closed") {
		t.Errorf("inside: %q", got)
	}
	// Standard streams, the socket to the keeper, and the two that Go's timers use.
	if fds := got[strings.LastIndex(got, "\n")+1:]; fds != "0 1 2 3 4 5" {
		t.Errorf("PID 1 has the descriptors %s", fds)
	}
}

func TestTheHostIsOutOfSight(t *testing.T) {
	r := newRig(t)
	mounts := r.sh("cat /proc/self/mountinfo")
	for line := range strings.Lines(mounts) {
		if f := strings.Fields(line); !strings.HasPrefix(f[4], "/dev") && !strings.HasPrefix(f[4], "/proc") && !strings.HasPrefix(f[4], "/sys") && f[4] != "/" && f[4] != "/etc/hostname" {
			t.Errorf("a mount of the host is seen: %s", line)
		}
	}
	if got := r.sh("ls /proc | grep -c '^[0-9]'"); got > "4" {
		t.Errorf("%s processes are seen", got)
	}
}

// hostileImages are roots with links where strata's own mounts go.
func TestLinksInTheImageDoNotEscape(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(outside, 0o777)
	link := func(name, to string) func(string) {
		return func(root string) {
			os.RemoveAll(filepath.Join(root, name))
			if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	folder := func(name string) func(string) {
		return func(root string) {
			if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(root string)
		words  string // of the refusal; "": it runs
	}{
		"proc is a link":    {link("proc", "/etc"), "/proc is a link"},
		"sys is a link":     {link("sys", "tmp"), "/sys is a link"},
		"dev is a link out": {link("dev", "../../../dev"), "/dev is a link"},
		"proc is a file": {func(root string) {
			os.Remove(filepath.Join(root, "proc"))
			os.WriteFile(filepath.Join(root, "proc"), nil, 0o644)
		}, "proc"},
		"etc is a link out":            {link("etc", "../../../.."+outside), ""},
		"etc is an absolute link out":  {link("etc", outside), ""},
		"hostname is a link out":       {link("etc/hostname", outside+"/hostname"), ""},
		"hostname is a link to itself": {link("etc/hostname", "hostname"), ""},
		"hostname is a dangling link":  {link("etc/hostname", "/nowhere/at/all"), ""},
		"hostname is a folder":         {folder("etc/hostname"), ""},
		"what is written is a folder":  {folder("etc/written"), ""},
		"passwd is a pipe": {func(root string) {
			os.Remove(filepath.Join(root, "etc/passwd"))
			unix.Mkfifo(filepath.Join(root, "etc/passwd"), 0o644)
		}, ""}, // root needs none; that others are refused: drivertest
		"passwd is a link to a secret": {link("etc/passwd", "/proc/self/environ"), ""},
		"there is no /proc, /sys, /dev": {func(root string) {
			for _, dir := range []string{"proc", "sys", "dev"} {
				os.Remove(filepath.Join(root, dir))
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.layer = busyboxLayer(t, c.change)
			s := ready("/bin/sh", "-c", "cat /etc/hostname")
			s.Files = append(s.Files, spec.File{Path: "/etc/written", Data: []byte("x")})
			z := r.start(s)
			m := z.goOn()
			switch {
			case m.Type == wire.Failed && c.words == "":
				t.Errorf("refused: %+v", *m.Fault)
			case m.Type == wire.Failed && !strings.Contains(m.Fault.Message, c.words):
				t.Errorf("refused with %q; want %q", m.Fault.Message, c.words)
			case m.Type == wire.Started && c.words != "":
				t.Error("it runs")
			case m.Type == wire.Started:
				z.end()
			}
			z.process.Kill()
			if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
				t.Errorf("written outside: %v, %v", left, err)
			}
		})
	}
}

func TestVolumeTargetsThroughLinks(t *testing.T) {
	r := newRig(t)
	r.layer = busyboxLayer(t, func(root string) {
		os.Symlink("/../../../../etc", filepath.Join(root, "up"))
		os.Symlink("loop", filepath.Join(root, "loop"))
	})
	s := ready("/bin/sh", "-c", "ls /etc/deep; ls -d /new/folder")
	s.Tmpfs = []spec.Tmpfs{{Target: "/up/deep/er", Size: 4096, Mode: 0o755}, {Target: "new//../new/folder", Size: 4096, Mode: 0o700}}
	if out, status := r.run(s); out != "er\n/new/folder\n" || status != 0 {
		t.Errorf("inside: %q, %v", out, status)
	}
	s.Tmpfs = []spec.Tmpfs{{Target: "/loop/x", Size: 4096, Mode: 0o755}}
	if m := r.start(s).goOn(); m.Type != wire.Failed {
		t.Error("a target through a loop of links was made")
	}
}

func TestTheKeeperIsGivenTheMainProgram(t *testing.T) {
	r := newRig(t)
	z := r.start(ready("/bin/sleep", "100"))
	m := z.goOn()
	if m.Type != wire.Started || m.file == nil {
		t.Fatalf("%+v", m)
	}
	defer m.file.Close()
	if err := unix.PidfdSendSignal(int(m.file.Fd()), unix.SIGUSR1, nil, 0); err != nil {
		t.Fatal(err)
	}
	if got := z.end(); got.Signal() != unix.SIGUSR1 {
		t.Errorf("the main program ended with %#x", int(got))
	}
}

func TestVolumesThatDoNotFitAreTheUsersFault(t *testing.T) {
	r := newRig(t)
	r.layer = busyboxLayer(t, func(root string) { os.Symlink("/nowhere/at/all", filepath.Join(root, "dangling")) })
	host := t.TempDir()
	file := filepath.Join(host, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for what, row := range map[string]struct {
		source, target string
		words          string
	}{
		"a folder over a file": {host, "/etc/passwd", "/etc/passwd is a file inside"},
		"a file over a folder": {file, "/etc", "/etc is a folder inside"},
		"below a file":         {host, "/etc/passwd/deeper", "not a directory"},
		"a link to nowhere":    {host, "/dangling", "/dangling cannot be made inside"},
	} {
		fd, err := unix.OpenTree(unix.AT_FDCWD, row.source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		tree := os.NewFile(uintptr(fd), row.source)
		s := ready("/bin/true")
		s.Volumes = []spec.Volume{{FD: spec.FD + 2, Target: row.target, Dir: row.source == host}}
		m := r.start(s, tree).goOn()
		tree.Close()
		if m.Type != wire.Failed || m.Fault.Kind != "invalid" || m.Fault.Field != "volumes" || !strings.Contains(m.Fault.Message, row.words) {
			t.Errorf("%s: %+v %+v", what, m.Type, m.Fault)
		}
	}
	s := ready("/bin/true")
	s.Tmpfs = []spec.Tmpfs{{Target: "/etc/passwd", Size: 4096, Mode: 0o755}}
	if m := r.start(s).goOn(); m.Type != wire.Failed || m.Fault.Kind != "invalid" || m.Fault.Field != "tmpfs" {
		t.Errorf("a tmpfs over a file: %+v %+v", m.Type, m.Fault)
	}
}

func TestTheEndOfTheKeeperIsTheEndOfTheZone(t *testing.T) {
	r := newRig(t)
	z := r.start(ready("/bin/sleep", "100"))
	if m := z.goOn(); m.Type != wire.Started {
		t.Fatalf("not started: %+v", m.Fault)
	}
	z.sync.Close()
	state, err := z.process.Wait()
	if err != nil || state.ExitCode() != 1 {
		t.Errorf("PID 1 ended with %v, %v", state, err)
	}
}

func TestTheEndOfTheKeeperBeforeGo(t *testing.T) {
	r := newRig(t)
	z := r.start(ready("/bin/sleep", "100"))
	z.sync.Close()
	if state, err := z.process.Wait(); err != nil || state.ExitCode() != 1 {
		t.Errorf("PID 1 ended with %v, %v", state, err)
	}
}

func TestNoDescriptorIsLeftToPrograms(t *testing.T) {
	r := newRig(t)
	if got := r.sh("ls /proc/self/fd | tr '\\n' ' '"); got != "0 1 2 3" { // 3 is the folder itself
		t.Errorf("descriptors: %q", got)
	}
}
