package qemu

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/strata-project/strata/internal/qemu/argv"
)

// The oldest QEMU that guests work with: memory backends by name on microvm, and
// descriptors for listening sockets.
const oldestMajor, oldestMinor = 6, 2

// Program is QEMU as the host has it.
type Program struct {
	Path         string
	Version      string // such as 7.2.22
	Major, Minor int
	Firmware     string // path of qboot.rom; "": there is none, SeaBIOS is slower
	Ring         bool   // disks can be read and written by io_uring
	Turns        bool   // processors of one machine take turns where QEMU translates, see Translator
}

// packages says where the program comes from. Source: packages.debian.org.
var packages = map[string][2]string{
	"amd64": {"qemu-system-x86_64", "qemu-system-x86"},
	"arm64": {"qemu-system-aarch64", "qemu-system-arm"},
}

// places are where QEMU's firmware lies. Source: Debian's qemu-system-data, and
// QEMU's own default prefix.
var places = []string{"/usr/share/qemu", "/usr/share/seabios", "/usr/local/share/qemu", "/usr/lib/ipxe/qemu"}

// machineType is the board of every guest.
const machineType = "microvm"

var found struct {
	sync.Mutex
	program Program
	stamp   string // of the file that program was found as
}

// findPatience bounds the questions to QEMU, which loads a hundred libraries to answer
// one: that takes seconds on an emulated processor.
const findPatience = time.Minute

// Find returns the host's QEMU. Kinds: Unable where it is missing or too old.
func Find(ctx context.Context) (Program, error) {
	want, ok := packages[runtime.GOARCH]
	if !ok {
		return Program{}, fault.Unablef("there is no QEMU for %s that strata knows", runtime.GOARCH)
	}
	path, err := exec.LookPath(want[0])
	if err != nil {
		return Program{}, fault.Unablef("guests need %s, which is not installed", want[0]).Help("apt install %s", want[1])
	}
	info, err := os.Stat(path)
	if err != nil {
		return Program{}, fault.Unablef("look at %s: %w", path, err)
	}
	stamp := fmt.Sprint(path, info.Size(), info.ModTime())
	found.Lock()
	defer found.Unlock()
	if found.stamp == stamp {
		return found.program, nil
	}
	asked := ctx
	ctx, cancel := context.WithTimeout(asked, findPatience)
	defer cancel()
	text, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return Program{}, fault.Unablef("%s does not say its version: %w", path, err).Help("apt install --reinstall %s", want[1])
	}
	p, err := parseVersion(path, string(text))
	if err != nil {
		return Program{}, err
	}
	if text, err = exec.CommandContext(ctx, path, "-M", "help").Output(); err != nil {
		return Program{}, fault.Unablef("%s does not say which machines it knows: %w", path, errors.Join(err, ctx.Err()))
	}
	if !hasMachine(string(text)) {
		return Program{}, fault.Unablef("%s knows no machine %q, which guests are", path, machineType).Help("install %s of Debian or Ubuntu", want[1])
	}
	p.Ring = hasRing(ctx, path)
	if err := asked.Err(); err != nil { // then that says nothing, and is not to be remembered
		return Program{}, fault.Unablef("%s does not say whether it has io_uring: %w", path, err)
	}
	for _, dir := range places {
		if name := filepath.Join(dir, "qboot.rom"); p.Firmware == "" && exists(name) {
			p.Firmware = name
		}
	}
	found.program, found.stamp = p, stamp
	return p, nil
}

var versionLine = regexp.MustCompile(`^QEMU emulator version ((\d{1,4})\.(\d{1,4})[.\d]*)`)

// parseVersion reads what QEMU says of itself.
func parseVersion(path, text string) (Program, error) {
	m := versionLine.FindStringSubmatch(text)
	if m == nil {
		return Program{}, fault.Unablef("%s does not look like QEMU: it says %q", path, plain(text))
	}
	p := Program{Path: path, Version: m[1]}
	p.Major, _ = strconv.Atoi(m[2]) // at most four digits
	p.Minor, _ = strconv.Atoi(m[3])
	p.Turns = p.Major < 8 || p.Major == 8 && p.Minor < 1
	if p.Major < oldestMajor || p.Major == oldestMajor && p.Minor < oldestMinor {
		return Program{}, fault.Unablef("%s is QEMU %s; guests need %d.%d or newer", path, p.Version, oldestMajor, oldestMinor).
			Help("install %s from a newer release of the distribution", packages[runtime.GOARCH][1])
	}
	return p, nil
}

// ringSetting says who may use io_uring, where the kernel has it: 0 is everybody.
// Source: Documentation/admin-guide/sysctl/kernel.rst, 6.6.
const ringSetting = "/proc/sys/kernel/io_uring_disabled"

// hasRing has QEMU open a file by io_uring, which it may have been built without,
// and which kernels and containers may refuse.
func hasRing(ctx context.Context, path string) bool {
	if text, err := os.ReadFile(ringSetting); err == nil && strings.TrimSpace(string(text)) != "0" {
		return false
	}
	cmd := exec.CommandContext(ctx, path, "-M", "none", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio",
		"-blockdev", "driver=file,node-name=file,read-only=on,aio=io_uring,filename="+argv.Escape(path))
	cmd.Stdin = strings.NewReader(`{"execute":"qmp_capabilities"}{"execute":"quit"}`)
	return cmd.Run() == nil
}

// hasMachine tells whether the list of machines has the one of guests.
func hasMachine(list string) bool {
	for line := range strings.Lines(list) {
		if name, _, _ := strings.Cut(line, " "); name == machineType {
			return true
		}
	}
	return false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
