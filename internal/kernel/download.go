package kernel

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Bounds of a download.
const (
	maxPackage   = unit.GiB
	loadPatience = time.Hour      // over a slow line
	resumeFor    = 24 * time.Hour // of one that was broken off
)

// aptBounds make apt give a mirror up that does not answer, and go on where a
// line was cut. Source: apt.conf(5), apt-transport-http(1).
var aptBounds = []string{
	"-o", "Acquire::http::Timeout=30", "-o", "Acquire::https::Timeout=30", "-o", "Acquire::Retries=2",
}

// downloads has a folder for each package that is under way. What a download that
// was broken off has brought stays there, and apt goes on from it.
type downloads struct {
	dir  string
	lock func(ctx context.Context, key string) (unlock func(), err error)
}

// fetch downloads a package's file and has use read it. Of several callers that
// want the same, each waits for the one before.
func (d downloads) fetch(ctx context.Context, name string, report Report, use func(file string) error) error {
	dir := filepath.Join(d.dir, name)
	unlock, err := d.lock(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	// apt downloads as its own user where that may write here, so here it may.
	if err := errors.Join(os.MkdirAll(dir, 0o755), giveToApt(dir)); err != nil {
		return room(err)
	}
	is := packageFile(ctx, name)
	if is.size > int64(maxPackage) {
		return fault.Invalidf("package %s has %s, more than any kernel's", name, unit.Size(is.size))
	}
	if err := keepOnly(dir, is.file); err != nil {
		return err
	}
	if err := bring(ctx, dir, name, is, report); err != nil {
		_ = os.Remove(dir) // where nothing has come
		return err
	}
	found, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(found) != 1 {
		return fault.Internalf("apt-get said that it had downloaded %s, and there is no such file", name)
	}
	report.tell("download", name, is.size, is.size)
	if err := use(found[0]); err != nil && ctx.Err() != nil {
		return err // it is whole, and read again when it is wanted again
	} else if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return os.RemoveAll(dir)
}

// keepOnly removes what an earlier download of another version has left in dir.
func keepOnly(dir, file string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == file {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// expire removes what nobody went on with.
func (d downloads) expire(before time.Time) error {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.ModTime().After(before) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(d.dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// aptHelper goes on with a file that is there in part, which apt-get download
// begins anew. Source: apt's cmdline/apt-helper.cc.
const aptHelper = "/usr/lib/apt/apt-helper"

// bring has apt put a package's file into dir. That it is the one that the
// archive's signature is of, apt-get sees: what is there as a whole it does not
// load again.
func bring(ctx context.Context, dir, name string, is archived, report Report) error {
	ctx, cancel := context.WithTimeout(ctx, loadPatience)
	defer cancel()
	report.tell("download", name, 0, is.size)
	follow := func(percent float64) { report.tell("download", name, int64(percent/100*float64(is.size)), is.size) }
	var words string
	var err error
	if _, lacks := os.Stat(aptHelper); is.uri != "" && lacks == nil {
		words, err = runApt(ctx, dir, follow, aptHelper, "download-file", is.uri, filepath.Join(dir, is.file), is.digest)
	}
	if err == nil {
		words, err = runApt(ctx, dir, follow, "apt-get", "download", "--", name)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fault.New(fault.Busy, "package %s cannot be downloaded: %s", name, words).
			Help("see whether `apt-get update` and `apt-get download %s` work here", name)
	}
	return nil
}

// runApt runs a program of apt's in dir and returns its last words.
func runApt(ctx context.Context, dir string, follow func(percent float64), program string, args ...string) (string, error) {
	status, told, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer status.Close()
	// -q: no bars. Status-Fd: apt's progress, see its README.progress-reporting.
	options := append([]string{"-q", "-o", "APT::Status-Fd=3"}, aptBounds...)
	cmd := exec.CommandContext(ctx, program, append(options, args...)...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = dir, aptEnviron(), []*os.File{told}
	// Asked to end, what loads for apt leaves the file with the archive's time: by
	// that a server knows that it is still the same, and sends only the rest.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	words := &tail{}
	cmd.Stdout, cmd.Stderr = words, words
	err = cmd.Start()
	told.Close()
	if err != nil {
		return "", fault.Wrap(err, "start %s", filepath.Base(program))
	}
	var reading sync.WaitGroup
	reading.Go(func() { followStatus(status, follow) })
	err = cmd.Wait()
	_ = status.SetReadDeadline(time.Now().Add(cmd.WaitDelay)) // whatever else holds it
	reading.Wait()
	return words.last(), err
}

// archived is a package's file in its archive.
type archived struct {
	uri, file string
	size      int64
	digest    string // such as SHA256:…
}

// uriPattern is a line of apt-get --print-uris.
var uriPattern = regexp.MustCompile(`(?m)^'([^']+)' (\S+) (\d+) (SHA\d+:[0-9a-f]+)`)

// packageFile returns where a package's file is; nothing where that is not known:
// it serves to show progress, and to go on with what was broken off.
func packageFile(ctx context.Context, name string) archived {
	ctx, cancel := context.WithTimeout(ctx, aptPatience)
	defer cancel()
	out, err := output(ctx, "", "apt-get", "--print-uris", "download", "--", name)
	if err != nil {
		return archived{}
	}
	m := uriPattern.FindStringSubmatch(string(out))
	if m == nil || m[2] != filepath.Base(m[2]) {
		return archived{}
	}
	size, err := strconv.ParseInt(m[3], 10, 64)
	if err != nil {
		return archived{}
	}
	return archived{m[1], m[2], size, m[4]}
}
