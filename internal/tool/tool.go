// Package tool runs programs of the host that make file systems and mend them. What reads
// something hostile, a disk that a guest wrote to or the files of a layer, runs confined:
// see package treat, which is what becomes it.
package tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/seccomp"
	"github.com/strata-project/strata/internal/tool/treat"
)

// Tool is a program of the host.
type Tool struct {
	Name    string
	Package string // that it comes with
}

// Path finds it, on the PATH or where distributions put what is root's. Kinds: Unable
// where it is missing.
func (t Tool) Path() (string, error) {
	if path, err := exec.LookPath(t.Name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, t.Name)
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fault.Unablef("the program %s is not installed", t.Name).Help("install the package %s", t.Package)
}

// Run runs it and returns its exit status; err is set for one other than 0.
func (t Tool) Run(ctx context.Context, args ...string) (status int, err error) {
	path, err := t.Path()
	if err != nil {
		return -1, err
	}
	return t.run(ctx, exec.CommandContext(ctx, path, args...))
}

// Job is what a confined tool is to do.
type Job struct {
	Agent string // path of strata-agent, which confines it
	Args  []string
	Env   []string // "NAME=value", besides the language
	// Image is all that it can write to. It finds that by its name, which is absolute, and
	// holds it for as long as it runs. It makes it no longer, but where there is a folder.
	Image *os.File
	// Folder is what the image is made of: a path, absolute, which is found in the calling
	// thread's mount namespace. "": nothing.
	Folder string
}

// Confined is Run for what nobody trusts.
func (t Tool) Confined(ctx context.Context, j Job) (status int, err error) {
	path, err := t.Path()
	if err != nil {
		return -1, err
	}
	filter, err := seccomp.Tool()
	if err != nil {
		return -1, fault.Wrap(err, "compile the seccomp filter")
	}
	image, err := cloned(int(j.Image.Fd()), "", j.Image.Name())
	if err != nil {
		return -1, err
	}
	defer image.Close()
	cmd := exec.CommandContext(ctx, j.Agent)
	cmd.Args = treat.Spec{Program: path, Args: j.Args, Image: j.Image.Name(), Folder: j.Folder, Filter: filter.Bytes()}.Encode()
	cmd.Env = append([]string{"LC_ALL=C"}, j.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: treat.Namespaces}
	cmd.ExtraFiles = []*os.File{j.Image, image.File()}
	if j.Folder != "" {
		folder, err := cloned(unix.AT_FDCWD, j.Folder, j.Folder)
		if err != nil {
			return -1, err
		}
		defer folder.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, folder.File())
	}
	status, err = t.run(ctx, cmd)
	if status == treat.Failed {
		return -1, fmt.Errorf("confine %w", err)
	}
	return status, err
}

// cloned is a mount of a file or folder, attached nowhere.
func cloned(dir int, path, name string) (*mount.Tree, error) {
	fd, err := unix.OpenTree(dir, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("clone the mount of %s: %w", name, err)
	}
	return mount.NewTree(fd, name), nil
}

func (t Tool) run(ctx context.Context, cmd *exec.Cmd) (int, error) {
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if err == nil {
		return 0, nil
	}
	if ctx.Err() != nil {
		return -1, ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), fmt.Errorf("%s: %w: %s", t.Name, err, said.words())
	}
	return -1, fmt.Errorf("%s: %w", t.Name, err)
}

// tail keeps the end of what a tool says: of something crafted it may be much.
type tail struct{ text []byte }

// maxTail bounds it. Unit: bytes.
const maxTail = 2000

func (t *tail) Write(b []byte) (int, error) {
	t.text = append(t.text, b[max(0, len(b)-maxTail):]...)
	t.text = t.text[:copy(t.text, t.text[max(0, len(t.text)-maxTail):])]
	return len(b), nil
}

// words are one line, without what a terminal acts on: names of files may be among them.
func (t *tail) words() string {
	return fault.Printable(strings.Join(strings.Fields(string(t.text)), " "))
}
