package template

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

func TestPlanBuild(t *testing.T) {
	for name, c := range map[string]struct {
		opt  BuildOptions
		name string
		has  []string // in the arguments
		not  []string
	}{
		"minbase by default":                   {BuildOptions{Base: "debian:bookworm"}, "debian:bookworm", []string{"--variant=minbase", "bookworm", "-"}, []string{"--include", "default.target"}},
		"the systemd variant brings an init":   {BuildOptions{Base: "debian:bookworm", Variant: "systemd"}, "debian:bookworm-systemd", []string{"--include=dbus,systemd,systemd-sysv"}, nil},
		"packages are sorted and asked once":   {BuildOptions{Base: "debian:12", Packages: []string{"nginx", "curl", "nginx"}, Name: "web"}, "web:latest", []string{"--include=curl,nginx", "bookworm"}, nil},
		"a mirror comes last":                  {BuildOptions{Base: "debian:sid", Mirror: "http://mirror.example/debian"}, "debian:sid", []string{"http://mirror.example/debian"}, nil},
		"ubuntu is asked of its own mirror":    {BuildOptions{Base: "ubuntu:24.04"}, "ubuntu:24.04", []string{"noble", "http://archive.ubuntu.com/ubuntu"}, nil},
		"a package may have its version named": {BuildOptions{Base: "debian:bookworm", Packages: []string{"nginx=1.22.1-9+deb12u1"}}, "debian:bookworm", []string{"--include=nginx=1.22.1-9+deb12u1"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := planBuild(c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if p.name != c.name {
				t.Errorf("name is %s, want %s", p.name, c.name)
			}
			for _, a := range c.has {
				if !slices.Contains(p.args, a) {
					t.Errorf("arguments %q lack %s", p.args, a)
				}
			}
			for _, a := range c.not {
				if strings.Contains(strings.Join(p.args, " "), a) {
					t.Errorf("arguments %q have %s", p.args, a)
				}
			}
		})
	}
}

func TestPlanBuildRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		opt   BuildOptions
		field string
	}{
		"another distribution":         {BuildOptions{Base: "gentoo:stage3"}, "base"},
		"a release that is an option":  {BuildOptions{Base: "debian:--setup-hook=x"}, "base"},
		"no release":                   {BuildOptions{Base: "debian"}, "base"},
		"an unknown variant":           {BuildOptions{Base: "debian:bookworm", Variant: "huge"}, "variant"},
		"a package that is a pattern":  {BuildOptions{Base: "debian:bookworm", Packages: []string{"ok", "?true"}}, "packages[1]"},
		"a package with a comma":       {BuildOptions{Base: "debian:bookworm", Packages: []string{"a,b"}}, "packages[0]"},
		"a mirror that is a file":      {BuildOptions{Base: "debian:bookworm", Mirror: "/etc/passwd"}, "mirror"},
		"a mirror with further words":  {BuildOptions{Base: "debian:bookworm", Mirror: "http://x/ sid main"}, "mirror"},
		"a malformed name of our own":  {BuildOptions{Base: "debian:bookworm", Name: "No Such"}, ""},
		"more packages than are taken": {BuildOptions{Base: "debian:bookworm", Packages: make([]string, 2000)}, "packages"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := planBuild(c.opt)
			wantKind(t, err, fault.Invalid)
			if got := fault.All(err)[0].Field; got != c.field {
				t.Errorf("field is %q, want %q", got, c.field)
			}
		})
	}
	_, err := planBuild(BuildOptions{Base: "x", Variant: "y", Mirror: "z"})
	if n := len(fault.All(err)); n != 3 {
		t.Errorf("%d faults at once, want 3: %v", n, err)
	}
}

// mirror asks for Debian's mirror.
func mirror(t *testing.T) {
	t.Helper()
	require.Tool(t, "mmdebstrap")
	c, err := net.DialTimeout("tcp", "deb.debian.org:80", 3*time.Second)
	if err == nil {
		c.Close()
	}
	require.Host(t, "debian-mirror", err == nil, "deb.debian.org cannot be reached")
}

func TestBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("a build takes a minute")
	}
	s := open(t)
	mirror(t)
	start, seen := time.Now(), false
	tm, err := s.Build(t.Context(), BuildOptions{Base: "debian:bookworm", Variant: VariantSystemd, Packages: []string{"openssh-server"}}, func(p Progress) {
		if strings.HasPrefix(p.Item, "W:") {
			t.Log(p.Item)
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		seen = seen || err != nil || bytes.Contains(mounts, []byte(s.dir))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v, %d bytes", time.Since(start), tm.Size)
	if seen {
		t.Error("the host sees what is mounted for the build")
	}
	if !tm.Config.System {
		t.Error("it is no system")
	}
	mounted(t, s, tm.Layers[0], func(dir string) {
		for path, want := range map[string]string{"etc/machine-id": "", "etc/fstab": "", "etc/hostname": "-", "etc/resolv.conf": "-", "etc/ssh/ssh_host_ed25519_key": "-", "var/lib/dbus/machine-id": "-"} {
			data, err := os.ReadFile(filepath.Join(dir, path))
			if (err == nil) != (want != "-") || (err == nil && string(data) != want) {
				t.Errorf("%s is %q, %v", path, data, err)
			}
		}
		if lists, _ := os.ReadDir(filepath.Join(dir, "var/lib/apt/lists")); len(lists) > 2 {
			t.Errorf("apt's lists are still there: %v", lists)
		}
		if target, _ := os.Readlink(filepath.Join(dir, "etc/systemd/system/default.target")); !strings.HasSuffix(target, "multi-user.target") {
			t.Errorf("default target is %q", target)
		}
	})
}

func TestBuildThatFailsSaysWhyAndLeavesNothing(t *testing.T) {
	s := open(t)
	mirror(t)
	_, err := s.Build(t.Context(), BuildOptions{Base: "debian:no-such-release"}, nil)
	wantKind(t, err, fault.Unable, "mmdebstrap failed", "no-such-release")
	if left := files(t, s); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestBuildWithoutTheToolSaysSo(t *testing.T) {
	s := open(t)
	if _, err := exec.LookPath("mmdebstrap"); err == nil {
		t.Setenv("PATH", "/nonexistent")
	}
	_, err := s.Build(t.Context(), BuildOptions{Base: "debian:bookworm"}, nil)
	wantKind(t, err, fault.Unable, "apt install mmdebstrap")
}

func TestWhatToolsSaySteersNoTerminal(t *testing.T) {
	if got := lastLines("one\n two\x1b[2J\n\u009b31m\u202ethree\n", 2); got != "two?[2J; ?31m?three" {
		t.Errorf("%q", got)
	}
}
