package template

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/strata-project/strata/internal/fault"
)

// The variants of a built template.
const (
	VariantMinbase = "minbase" // essential packages and apt; kind app
	VariantSystemd = "systemd" // and systemd as its init; kind system
)

// BuildOptions say what a build makes.
type BuildOptions struct {
	Base     string   // distribution:release, such as "debian:bookworm"
	Variant  string   // "": VariantMinbase
	Packages []string // further ones
	Name     string   // "": the base, with "-systemd" for that variant
	Mirror   string   // http or https; "": what the host's apt uses, else the distribution's own
}

// distributions are those whose archives mmdebstrap can read.
var distributions = map[string]struct {
	releases map[string]string // other words for a release
	fallback string            // mirror; "": mmdebstrap's own choice, which has security updates
}{
	"debian": {map[string]string{"11": "bullseye", "12": "bookworm", "13": "trixie", "latest": "stable"}, ""},
	"ubuntu": {map[string]string{"22.04": "jammy", "24.04": "noble", "26.04": "resolute"}, "http://archive.ubuntu.com/ubuntu"},
}

// systemdPackages are what makes a Debian boot and its services talk. dbus is for
// logind, without which the system ends up "degraded" and a power key is not heard.
var systemdPackages = []string{"systemd", "systemd-sysv", "dbus"}

var (
	releasePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)
	// Source: Debian policy 5.6.7 and 5.6.12, and apt-get(8) for :arch, =version and /release.
	packagePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+(:[a-z0-9-]+)?([=/][A-Za-z0-9.+~:-]+)?$`)
)

const maxPackages = 1024

// buildPlan is what mmdebstrap is asked for, as an argument list.
type buildPlan struct {
	args   []string
	config v1.ConfigFile
	name   string // in full
	source string
}

// planBuild checks the options and turns them into a plan; it runs nothing.
// Kinds: Invalid, with every fault at once.
func planBuild(opt BuildOptions) (buildPlan, error) {
	var faults []error
	distribution, release, _ := strings.Cut(opt.Base, ":")
	d, known := distributions[distribution]
	if alias, ok := d.releases[release]; ok {
		release = alias
	}
	if !known || !releasePattern.MatchString(release) {
		faults = append(faults, fault.Invalidf("%q is nothing to build from", printable(opt.Base)).At("base").
			Help("write debian:RELEASE or ubuntu:RELEASE, such as debian:bookworm"))
	}
	if opt.Variant == "" {
		opt.Variant = VariantMinbase
	}
	if opt.Variant != VariantMinbase && opt.Variant != VariantSystemd {
		faults = append(faults, fault.Invalidf("the variant %q is unknown", printable(opt.Variant)).At("variant").Help("write %s or %s", VariantMinbase, VariantSystemd))
	}
	if len(opt.Packages) > maxPackages {
		faults = append(faults, fault.Invalidf("%d packages are too many", len(opt.Packages)).At("packages").Help("ask for at most %d", maxPackages))
		opt.Packages = nil
	}
	for i, p := range opt.Packages {
		if !packagePattern.MatchString(p) {
			faults = append(faults, fault.Invalidf("%q is not a package's name", printable(p)).At(fmt.Sprintf("packages[%d]", i)).Help("write it as apt does: name, name=version or name:architecture"))
		}
	}
	mirror := opt.Mirror
	if u, err := url.Parse(mirror); mirror != "" && (err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.ContainsAny(mirror, " \t\n")) {
		faults = append(faults, fault.Invalidf("%q is not a mirror", printable(mirror)).At("mirror").Help("write a URL such as http://deb.debian.org/debian"))
	}
	name := opt.Name
	if name == "" && len(faults) == 0 {
		if name = opt.Base; opt.Variant == VariantSystemd {
			name += "-systemd"
		}
	}
	full, err := parseTag(name)
	if err != nil && (opt.Name != "" || len(faults) == 0) {
		faults = append(faults, err)
	}
	if err := fault.Join(faults...); err != nil {
		return buildPlan{}, err
	}
	if mirror == "" {
		mirror = d.fallback
	}
	p := buildPlan{name: full, source: fmt.Sprintf("built from %s:%s (%s)", distribution, release, opt.Variant)}
	p.args, p.config = buildArgs(opt, release, mirror), buildConfig(opt)
	return p, nil
}

// buildArgs is mmdebstrap's command line. Source: mmdebstrap(1).
func buildArgs(opt BuildOptions, release, mirror string) []string {
	packages := slices.Clone(opt.Packages)
	if opt.Variant == VariantSystemd {
		packages = append(packages, systemdPackages...)
	}
	slices.Sort(packages)
	args := []string{"--variant=minbase", "--format=tar", "--verbose"}
	if packages = slices.Compact(packages); len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	// Nothing of the building host may stay in the template, and the id of a
	// machine is made at its first boot. mmdebstrap removes apt's lists and caches.
	hooks := []string{
		`: > "$1/etc/machine-id"`,
		`rm -f "$1/etc/hostname" "$1/etc/resolv.conf" "$1/var/lib/dbus/machine-id" "$1/var/lib/systemd/random-seed" "$1"/etc/ssh/ssh_host_*`,
		`: > "$1/etc/fstab"`,
	}
	// Host keys shared by every environment would be no secret: each makes its own.
	hooks = append(hooks, `if [ -e "$1/usr/sbin/sshd" ]; then mkdir -p "$1/etc/systemd/system/ssh.service.d" && `+
		`printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n' > "$1/etc/systemd/system/ssh.service.d/host-keys.conf"; fi`)
	if opt.Variant == VariantSystemd {
		hooks = append(hooks, `ln -sf /lib/systemd/system/multi-user.target "$1/etc/systemd/system/default.target"`)
	}
	for _, h := range hooks {
		args = append(args, "--customize-hook="+h)
	}
	args = append(args, release, "-")
	if mirror != "" {
		args = append(args, mirror)
	}
	return args
}

func buildConfig(opt BuildOptions) v1.ConfigFile {
	c := v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, Config: v1.Config{
		Cmd: []string{"/bin/bash"}, Env: []string{defaultPath}, Labels: map[string]string{KindLabel: KindApp},
	}}
	if opt.Variant == VariantSystemd {
		c.Config.Cmd = []string{"/sbin/init"}
		c.Config.StopSignal = StopSystemd
		c.Config.Labels[KindLabel] = KindSystem
	}
	return c
}

// Build makes a template of a distribution's packages with mmdebstrap.
// Kinds: Invalid for malformed options, Unable where mmdebstrap is missing or
// fails (its last words are in the message), makeLayer's.
func (s *Store) Build(ctx context.Context, opt BuildOptions, r Report) (Template, error) {
	if opt.Mirror == "" {
		distribution, _, _ := strings.Cut(opt.Base, ":")
		opt.Mirror = hostMirror(hostRoot(), distribution)
	}
	plan, err := planBuild(opt)
	if err != nil {
		return Template{}, err
	}
	tool, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return Template{}, fault.Unablef("mmdebstrap is not on this host").Help("install it: apt install mmdebstrap")
	}
	w, err := s.begin()
	if err != nil {
		return Template{}, err
	}
	defer w.end()
	if err := os.Chmod(w.dir, 0o711); err != nil { // see Open
		return Template{}, err
	}
	run, err := startBuilder(ctx, tool, plan.args, w.dir, r)
	if err != nil {
		return Template{}, fault.Wrap(err, "build %s", plan.name)
	}
	defer run.stop()
	plan.config.Created = v1.Time{Time: time.Now().UTC().Truncate(time.Second)}
	t, err := w.fromTar(ctx, run, plan.config, nil, []string{plan.name}, plan.source)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return t, fault.Wrap(err, "build %s", plan.name)
}

// builder is a running mmdebstrap, read as the tar that it writes. The end of
// the tar is an end only if mmdebstrap ended well.
type builder struct {
	cmd  *exec.Cmd
	out  io.Reader
	said *tail
	once sync.Once
	err  error
}

// buildGrace is how long mmdebstrap may take to clean up when it is told to end.
const buildGrace = 20 * time.Second

func startBuilder(ctx context.Context, tool string, args []string, tmp string, r Report) (*builder, error) {
	b := &builder{said: &tail{report: r}}
	b.cmd = exec.CommandContext(ctx, tool, args...)
	b.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "TMPDIR=") }),
		"TMPDIR="+tmp, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	b.cmd.Stderr = b.said
	// In a mount namespace of its own: it mounts the host's devices, proc and sysfs below tmp, and
	// where it or the daemon is killed nothing of them may be there for who removes tmp.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: syscall.CLONE_NEWNS}
	b.cmd.Cancel = func() error { return syscall.Kill(-b.cmd.Process.Pid, syscall.SIGTERM) }
	b.cmd.WaitDelay = buildGrace
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	b.out = out
	return b, b.cmd.Start()
}

func (b *builder) Read(p []byte) (int, error) {
	n, err := b.out.Read(p)
	if err != nil {
		if werr := b.wait(); werr != nil {
			err = werr
		}
	}
	return n, err
}

// wait returns what mmdebstrap said last where it failed.
func (b *builder) wait() error {
	b.once.Do(func() {
		err := b.cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
			err = fault.Unablef("mmdebstrap failed (%w): %s", err, b.said.last()).Help("check the release, the packages' names and that the mirror can be reached")
		}
		b.err = err
	})
	return b.err
}

// stop ends a builder whose tar nobody reads any more.
func (b *builder) stop() {
	if b.cmd.ProcessState == nil {
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGTERM) // it may have ended just now
		go func() { _, _ = io.Copy(io.Discard, b.out) }()
		_ = b.wait()
	}
}

// tail keeps the last lines of a tool's output, and reports each.
type tail struct {
	report Report
	mu     sync.Mutex
	part   string
	lines  []string
}

const (
	tailLines = 12
	tailWidth = 400
)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part += string(p)
	for {
		line, rest, ok := strings.Cut(t.part, "\n")
		if !ok {
			if len(t.part) > tailWidth {
				t.part = t.part[:tailWidth]
			}
			return len(p), nil
		}
		t.part = rest
		// apt's progress bars overwrite themselves.
		line = strings.TrimSpace(line[strings.LastIndex(line, "\r")+1:])
		if line == "" {
			continue
		}
		line = line[:min(len(line), tailWidth)]
		if t.lines = append(t.lines, line); len(t.lines) > tailLines {
			t.lines = t.lines[1:]
		}
		t.report.tell("build", printable(line), 0, 0)
	}
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var faults []string
	for _, line := range t.lines {
		if strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "Err:") {
			faults = append(faults, line)
		}
	}
	if len(faults) == 0 {
		faults = t.lines
	}
	return lastLines(strings.Join(faults, "\n"), tailLines)
}

// lastLines returns the end of a tool's output for an error message.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, l := range lines {
		lines[i] = printable(strings.TrimSpace(l))
	}
	return strings.Join(lines, "; ")
}
