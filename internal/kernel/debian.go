package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Bounds of a download.
const (
	maxPackage   = unit.GiB
	maxListing   = 4 * unit.MiB
	aptPatience  = 2 * time.Minute // of looking something up
	loadPatience = time.Hour       // of a download, over a slow line
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
func (in *intake) fromDebian(ctx context.Context, name string, report Report) (string, error) {
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
	dir := filepath.Join(in.dir, "download")
	// apt downloads as its own user where that may write here, so here it may.
	if err := errors.Join(os.Chmod(in.dir, 0o711), os.Mkdir(dir, 0o755), giveToApt(dir)); err != nil {
		return "", err
	}
	var from []string
	for _, one := range names {
		file, err := download(ctx, dir, one, report)
		if err != nil {
			return "", err
		}
		if err := in.takePackageFile(ctx, file, report); err != nil {
			return "", err
		}
		from = append(from, strings.TrimSuffix(filepath.Base(file), ".deb"))
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

// download fetches one package, and returns its file.
func download(ctx context.Context, dir, name string, report Report) (string, error) {
	total := packageSize(ctx, name)
	if total > int64(maxPackage) {
		return "", fault.Invalidf("package %s has %s, more than any kernel's", name, unit.Size(total))
	}
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	report.tell("download", name, 0, total)
	status, told, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer status.Close()
	// -q: no bars. Status-Fd: apt-get's progress, see apt's README.progress-reporting.
	cmd := exec.CommandContext(ctx, "apt-get", "-q", "-o", "APT::Status-Fd=3", "download", "--", name)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, aptEnviron(), []*os.File{told}
	cmd.WaitDelay = 5 * time.Second
	words := &tail{}
	cmd.Stdout, cmd.Stderr = words, words
	err = cmd.Start()
	told.Close()
	if err != nil {
		return "", fault.Wrap(err, "start apt-get")
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		followStatus(status, func(percent float64) {
			report.tell("download", name, int64(percent/100*float64(total)), total)
		})
	})
	err = cmd.Wait()
	reading.Wait()
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", fault.New(fault.Busy, "package %s cannot be downloaded: %s", name, words.last()).
			Help("see whether `apt-get update` and `apt-get download %s` work here", name)
	}
	found, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(found) != 1 {
		return "", fault.Internalf("apt-get said that it had downloaded %s, and there is no such file", name)
	}
	report.tell("download", name, total, total)
	return found[0], nil
}

// uriPattern is a line of apt-get --print-uris: 'address' file size digest.
var uriPattern = regexp.MustCompile(`(?m)^'[^']+' \S+ (\d+)`)

// packageSize returns how large a package's file is, 0 where that is not known:
// it only serves to show progress.
func packageSize(ctx context.Context, name string) int64 {
	ctx, cancel := context.WithTimeout(ctx, aptPatience)
	defer cancel()
	out, err := output(ctx, "", "apt-get", "--print-uris", "download", "--", name)
	if err != nil {
		return 0
	}
	m := uriPattern.FindSubmatch(out)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		return 0
	}
	return n
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

// last returns the last line that says something, an error rather than a warning.
func (t *tail) last() string {
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if said, ok := strings.CutPrefix(lines[i], "E: "); ok {
			return printable(said)
		}
	}
	return printable(lines[len(lines)-1])
}
