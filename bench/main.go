package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// env is what every comparison works with.
type env struct {
	bin          string // strata's programs
	root         string // strata's private root
	work         string // everything else
	runs         int
	many         int    // environments at once
	kernelSource string // of guests
	made         *bare  // what guests are compared with; nil: not yet

	machineSource string // of machines
	crowded       bool   // they are started
	daemon        *exec.Cmd
}

var comparisons = []struct {
	name string
	run  func(*env) error
}{
	{"start", (*env).start},
	{"parallel", (*env).parallel},
	{"idle", (*env).idle},
	{"observe", (*env).observe},
	{"disk", (*env).disk},
	{"network", (*env).network},
	{"guest-start", ofGuests((*env).guestStarts)},
	{"guest-memory", ofGuests((*env).guestMemory)},
	{"guest-disk", ofGuests((*env).guestDisk)},
	{"guest-exec", ofGuests((*env).guestExec)},
	{"machine-start", (*env).machine},
	{"machine-disk", (*env).machineDisk},
	{"machine-suspend", (*env).machineSuspends},
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "inside" {
		inside(os.Args[2:])
		return
	}
	runs := flag.Int("runs", 15, "counted runs of each side")
	many := flag.Int("many", 500, "environments of the idle comparison")
	kernel := flag.String("kernel", "debian", "kernel of the guests, as strata kernel add takes it")
	full := flag.String("machine-kernel", "debian:linux-image-amd64", "kernel of the machines, likewise")
	bin := flag.String("bin", "bin", "folder of strata's programs")
	flag.Parse()
	if err := run(env{bin: *bin, runs: *runs, many: *many, kernelSource: *kernel, machineSource: *full}, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(e env, names []string) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("root is needed: sudo make bench")
	}
	if apart, err := elsewhere(); apart || err != nil {
		return err
	}
	if e.bin, err = filepath.Abs(e.bin); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "stbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	e.work, e.root = work, filepath.Join(work, "root")
	facts()
	if err := e.up(); err != nil {
		return err
	}
	defer e.down()
	for _, c := range comparisons {
		kind, _, _ := strings.Cut(c.name, "-")
		if len(names) > 0 && !slices.Contains(names, c.name) && !slices.Contains(names, kind) {
			continue
		}
		fmt.Printf("\n%s\n", c.name)
		if err := c.run(&e); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// elsewhere runs this program again in a network namespace of its own, so that
// no bridge or rule of the host is touched, and says whether it did.
func elsewhere() (bool, error) {
	const marker = "STRATA_BENCH_NETNS"
	if os.Getenv(marker) != "" {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return false, err
		}
		return false, netlink.LinkSetUp(lo)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return true, cmd.Run()
}

// facts prints what the figures were measured on.
func facts() {
	var u unix.Utsname
	unix.Uname(&u)
	fmt.Printf("%s, kernel %s, %d processors, %s\n", time.Now().UTC().Format("2006-01-02"), unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), runtime.GOARCH)
	for _, peer := range [][]string{{"runc", "--version"}, {"podman", "--version"}} {
		out, err := exec.Command(peer[0], peer[1:]...).Output()
		if err != nil {
			fmt.Printf("%s: not installed\n", peer[0])
			continue
		}
		fmt.Println(strings.SplitN(string(out), "\n", 2)[0])
	}
}

func (e *env) up() error {
	os.Setenv("STRATA_AUTOSTART", "no") // the daemon that is measured is this one
	if err := os.MkdirAll(e.root, 0o711); err != nil {
		return err
	}
	e.daemon = exec.Command(filepath.Join(e.bin, "stratad"), "--root", e.root)
	e.daemon.Stderr = os.Stderr
	if err := e.daemon.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if e.strata("info").Run() == nil {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("stratad does not answer")
		}
	}
	return e.strata("run", "--rm", "busybox", "true").Run()
}

func (e *env) down() {
	if out, err := e.strata("system", "reset", "--force").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: reset: %v\n%s", err, out)
	}
	e.daemon.Process.Signal(syscall.SIGTERM)
	e.daemon.Wait()
}

// strata returns a command of the CLI.
func (e *env) strata(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(e.bin, "strata"), append([]string{"--root", e.root}, args...)...)
}

// side is one of the things compared.
type side struct {
	name string
	run  func() (float64, error) // a figure, such as seconds or bytes a second
}

// aftermath is how long each run is left alone after its end: what a side then
// still clears away, or makes ready for the next, is not to slow the other side down.
const aftermath = 200 * time.Millisecond

// compare runs every side in turn and prints each one's median, spread and, for
// all but the first, the ratio of the first to it, pair by pair.
func compare(runs int, unit string, sides ...side) error {
	figures := make([][]float64, len(sides))
	for i := range runs + 1 {
		for s := range sides {
			v, err := sides[s].run()
			if err != nil {
				return fmt.Errorf("%s: %w", sides[s].name, err)
			}
			time.Sleep(aftermath)
			if i > 0 { // the first round warms up
				figures[s] = append(figures[s], v)
			}
		}
	}
	names := make([]string, len(sides))
	for s := range sides {
		names[s] = sides[s].name
	}
	report(unit, names, figures)
	return nil
}

// report prints each side's median, spread and, for all but the first, the ratio of the
// first to it.
func report(unit string, names []string, figures [][]float64) {
	for s, name := range names {
		line := fmt.Sprintf("  %-34s %10.2f %-5s (%.2f to %.2f)", name, median(figures[s]), unit, slices.Min(figures[s]), slices.Max(figures[s]))
		if s > 0 {
			ratios := make([]float64, len(figures[s]))
			for i := range ratios {
				ratios[i] = figures[0][i] / figures[s][i]
			}
			line += fmt.Sprintf("   strata / this: %.2f", median(ratios))
		}
		fmt.Println(line)
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// timed runs a command and returns how many milliseconds it took.
func timed(cmd *exec.Cmd) (float64, error) {
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	return float64(time.Since(begun).Microseconds()) / 1000, nil
}
