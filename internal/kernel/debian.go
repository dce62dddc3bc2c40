package kernel

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Bounds of asking apt.
const (
	maxListing  = 4 * unit.MiB
	aptPatience = 2 * time.Minute // of looking something up
)

// debianPattern is a package's name. Source: Debian policy 5.6.7.
var debianPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,127}$`)

// What kernels' packages are called: the kernel itself, and where a distribution
// splits them off, its modules. Source: Debian's and Ubuntu's archives.
const (
	imagePrefix   = "linux-image-"
	modulesPrefix = "linux-modules-"
)

// fromDebian takes the kernel of a package, "" for the one that the newest cloud
// kernel is in. The package is downloaded with the host's apt, which checks its
// signature, and is not installed.
func (in *intake) fromDebian(ctx context.Context, d downloads, name string, report Report) (string, error) {
	if name == "" {
		name = imagePrefix + "cloud-" + runtime.GOARCH
	}
	if !debianPattern.MatchString(name) {
		return "", fault.Invalidf("%q is no package's name", printable(name)).At("source")
	}
	for _, tool := range []string{"apt-get", "apt-cache"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fault.Unablef("this host has no %s", tool).Help("download a kernel's package by other means, and add it: strata kernel add FILE.deb")
		}
	}
	report.tell("find", name, 0, 0)
	names, err := kernelPackages(ctx, name)
	if err != nil {
		return "", err
	}
	var from []string
	for _, one := range names {
		err := d.fetch(ctx, one, report, func(file string) error {
			from = append(from, strings.TrimSuffix(filepath.Base(file), ".deb"))
			return in.takePackageFile(ctx, file, report)
		})
		if err != nil {
			return "", err
		}
	}
	return strings.Join(from, ", "), nil
}

// kernelPackages returns the packages of a kernel: what name itself is, or
// depends on where it only stands for the newest.
func kernelPackages(ctx context.Context, name string) ([]string, error) {
	var all []string
	for range 3 { // a name that stands for another that stands for a package
		depends, err := dependencies(ctx, name)
		if err != nil {
			return nil, err
		}
		next := ""
		var modules []string
		for _, d := range depends {
			switch {
			case strings.HasPrefix(d, imagePrefix) && next == "":
				next = d
			case strings.HasPrefix(d, modulesPrefix):
				modules = append(modules, d)
			}
		}
		if next == "" {
			return append([]string{name}, append(modules, all...)...), nil
		}
		name, all = next, append(all, modules...)
	}
	return nil, fault.Invalidf("package %s names no kernel", name).At("source")
}

// dependencies asks apt what a package depends on.
func dependencies(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, aptPatience)
	defer cancel()
	out, err := output(ctx, "", "apt-cache", "depends", "--important", "--", name)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fault.Missingf("apt knows no package %s", name).At("source").
			Help("run `apt-get update`, or give a package's file: strata kernel add FILE.deb")
	}
	return parseDepends(out), nil
}

// parseDepends reads the packages that apt-cache depends prints.
func parseDepends(text []byte) []string {
	var all []string
	for line := range bytes.Lines(text) {
		line = bytes.TrimPrefix(bytes.TrimSpace(line), []byte("|"))
		kind, name, ok := strings.Cut(string(line), ": ")
		if ok && (kind == "Depends" || kind == "PreDepends") && debianPattern.MatchString(name) {
			all = append(all, name)
		}
	}
	return all
}

// followStatus reads apt's progress: dlstatus:item:percent:words.
func followStatus(r io.Reader, tell func(percent float64)) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), ":", 4)
		if len(fields) < 4 || fields[0] != "dlstatus" {
			continue
		}
		if percent, err := strconv.ParseFloat(fields[2], 64); err == nil && percent >= 0 && percent <= 100 {
			tell(percent)
		}
	}
	_, _ = io.Copy(io.Discard, r) // a line that is too long must not block apt
}

// aptEnviron makes apt speak as its manual does, and ask nothing.
func aptEnviron() []string {
	return append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
}

func output(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, aptEnviron(), 5*time.Second
	out := &bounded{limit: int(maxListing)}
	words := &tail{}
	cmd.Stdout, cmd.Stderr = out, words
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program, err, words.last())
	}
	return out.Bytes(), nil
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	bytes.Buffer
	limit int
}

func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), b.limit-b.Len())])
	return len(p), nil
}

// tail keeps the last words of a program. exec writes to it from one goroutine.
type tail struct{ text []byte }

const tailSize = 4096

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailSize):]
	return len(p), nil
}

// last returns the last line that says why: what kept a file from being fetched,
// else an error rather than a warning.
func (t *tail) last() string {
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	for _, begin := range []string{"E: Failed to fetch ", "W: Failed to fetch ", "E: "} {
		for _, line := range slices.Backward(lines) {
			said, ok := strings.CutPrefix(line, begin)
			if ok && begin != "E: " {
				_, said, ok = strings.Cut(said, " ") // the address
			}
			if ok {
				return printable(strings.TrimSpace(said))
			}
		}
	}
	return printable(lines[len(lines)-1])
}
