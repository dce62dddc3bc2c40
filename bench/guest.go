package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

// clones is how many warm guests the memory comparison has.
const clones = 10

// ofGuests compares guests with a bare QEMU that does the same.
func ofGuests(compare func(*env, *bare) error) func(*env) error {
	return func(e *env) error {
		b, err := e.peer()
		if err != nil {
			return err
		}
		return compare(e, b)
	}
}

// peer is the bare QEMU of all comparisons of guests, made and tried by the first.
func (e *env) peer() (*bare, error) {
	if e.made != nil {
		return e.made, nil
	}
	if err := e.kernel(); err != nil {
		return nil, err
	}
	b, err := e.bare()
	if err != nil {
		return nil, err
	}
	if err := e.sameAs(b); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	e.made = b
	return b, nil
}

// kernel sees to it that strata has one.
func (e *env) kernel() error {
	out, err := e.strata("kernel", "ls", "--quiet").Output()
	if err != nil || len(strings.TrimSpace(string(out))) > 0 {
		return err
	}
	if out, err := e.strata("kernel", "add", e.kernelSource).CombinedOutput(); err != nil {
		return fmt.Errorf("strata kernel add: %w: %s", err, out)
	}
	return nil
}

// sameAs looks at what strata's guests are, so that the bare ones are the same.
func (e *env) sameAs(b *bare) error {
	if err := e.begin("same", "--cold"); err != nil {
		return err
	}
	defer e.strata("rm", "-f", "same").Run()
	g, err := e.show("same")
	if err != nil {
		return err
	}
	if g.Boot == nil {
		return fmt.Errorf("strata does not say how its guest was booted")
	}
	b.machine(g.Boot.Accelerator)
	fmt.Printf("  %s, kernel %s, accelerator %s (%s)\n", b.version(), g.Boot.Kernel, g.Boot.Accelerator, g.Boot.Why)
	return nil
}

// guestRun is the whole command.
func (e *env) guestRun(flags ...string) func() (float64, error) {
	return func() (float64, error) {
		args := append([]string{"run", "--rm", "--stratum", "guest"}, flags...)
		return timed(e.strata(append(args, "busybox", "true")...))
	}
}

func (e *env) guestStarts(b *bare) error {
	shell, err := b.shell()
	if err != nil {
		return err
	}
	booted := func(initramfs string) func() (float64, error) {
		return func() (float64, error) {
			took, _, err := b.boot(initramfs, "threads")
			return took, err
		}
	}
	err = compare(e.runs, "ms",
		side{"strata run --rm --cold", e.guestRun("--cold")},
		side{"bare QEMU", booted(b.nothing)},
		side{"bare QEMU, a shell as /init", booted(shell)})
	if err != nil {
		return err
	}
	if warm, err := e.warmed(); !warm || err != nil {
		fmt.Println("  warm: a guest that could go on from a saved system was booted")
		return err
	}
	return compare(e.runs, "ms",
		side{"strata run --rm, warm", e.guestRun()},
		side{"strata run --rm --cold", e.guestRun("--cold")},
		side{"bare QEMU", booted(b.nothing)})
}

// warmed waits until guests start warm, and as copies where that is possible, which the first ones do not, and says
// whether they do at last.
func (e *env) warmed() (bool, error) {
	warm := false
	for range 10 {
		if err := e.begin("warmed"); err != nil {
			return false, err
		}
		g, err := e.show("warmed")
		if out, err := e.strata("rm", "-f", "warmed").CombinedOutput(); err != nil {
			return false, fmt.Errorf("%w: %s", err, out)
		}
		if err != nil || g.Boot == nil || g.Boot.Copied {
			return err == nil && g.Boot != nil, err
		}
		warm = g.Boot.Warm
		time.Sleep(time.Second)
	}
	return warm, nil
}

// guestMemory says what each further idle guest takes.
func (e *env) guestMemory(*bare) error {
	settle := func() (figures map[string]float64, err error) {
		time.Sleep(5 * time.Second)
		figures = map[string]float64{"kernel": e.cost().kernel}
		for i := range clones {
			g, err := e.show(fmt.Sprintf("idle-guest-%d", i))
			if err != nil {
				break // not started yet
			}
			figures["keeper"] += pssOf(g.KeeperPID)
			figures["QEMU"] += pssOf(g.PID)
			if g.Boot != nil && g.Boot.Warm {
				figures["warm"]++
			}
			if g.Boot != nil && g.Boot.Copied {
				figures["copies"]++
			}
		}
		return figures, nil
	}
	var first map[string]float64
	for i := range clones {
		name := fmt.Sprintf("idle-guest-%d", i)
		if err := e.begin(name); err != nil {
			return err
		}
		defer e.strata("rm", "-f", name).Run()
		if i == 0 {
			var err error
			if _, err = e.warmed(); err != nil {
				return err
			}
			if first, err = settle(); err != nil {
				return err
			}
		}
	}
	all, err := settle()
	if err != nil {
		return err
	}
	fmt.Printf("  %d idle guests, %.0f of them warm, of which %.0f are copies; each further one takes\n", clones, all["warm"], all["copies"])
	total := 0.0
	for _, part := range []struct{ name, note string }{{"QEMU", "PSS"}, {"keeper", "PSS"}, {"kernel", "slab, page tables, stacks of the whole host: rough"}} {
		each := (all[part.name] - first[part.name]) / (clones - 1)
		total += each
		fmt.Printf("    %-8s %8.2f MiB (%s)\n", part.name, each, part.note)
	}
	fmt.Printf("    %-8s %8.2f MiB\n", "in all", total)
	return nil
}

// guestDisk compares the private disk with that of a bare machine, by QEMU's threads
// and by io_uring where that is to be had.
func (e *env) guestDisk(b *bare) error {
	self, err := e.self()
	if err != nil {
		return err
	}
	if err := e.begin("guest-disk"); err != nil {
		return err
	}
	defer e.strata("rm", "-f", "guest-disk").Run()
	if out, err := e.strata("cp", self, "guest-disk:/bench").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	inside := func(what, aio string) (float64, error) {
		initramfs, err := b.initramfs(true, "/bench", "inside", what, "/")
		if err != nil {
			return 0, err
		}
		defer os.Remove(initramfs)
		_, said, err := b.boot(initramfs, aio)
		if err != nil {
			return 0, err
		}
		return number(said)
	}
	ways := []string{"threads"}
	if _, _, err := b.boot(b.nothing, "io_uring"); err == nil {
		ways = append(ways, "io_uring")
	}
	for _, what := range []struct{ name, unit string }{{"write", "MB/s"}, {"read", "MB/s"}, {"fsync", "1/s"}} {
		sides := []side{{what.name + " in a guest", func() (float64, error) {
			return figure(e.strata("exec", "guest-disk", "/bench", "inside", what.name, "/"))
		}}}
		for _, way := range ways {
			sides = append(sides, side{what.name + " in bare QEMU, " + way, func() (float64, error) { return inside(what.name, way) }})
		}
		if err := compare(5, what.unit, sides...); err != nil {
			return err
		}
	}
	return nil
}

// guestExec compares the call that runs a further program, from request to exit status.
func (e *env) guestExec(*bare) error {
	if err := e.begin("guest-exec"); err != nil {
		return err
	}
	defer e.strata("rm", "-f", "guest-exec").Run()
	if out, err := e.strata("run", "-d", "--name", "zone-exec", "busybox", "sleep", "100000").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	defer e.strata("rm", "-f", "zone-exec").Run()
	c := client.New(filepath.Join(e.root, "strata.sock"))
	defer c.Close()
	exec := func(name string) func() (float64, error) {
		return func() (float64, error) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			begun := time.Now()
			exit, err := c.Exec(ctx, name, api.Process{Command: []string{"true"}}, client.Streams{})
			if err == nil && exit.Status != 0 {
				err = fmt.Errorf("true ended with %d", exit.Status)
			}
			return float64(time.Since(begun).Microseconds()) / 1000, err
		}
	}
	return compare(e.runs, "ms", side{"exec in a guest, the API's call", exec("guest-exec")}, side{"exec in a zone", exec("zone-exec")})
}

// begin starts a guest that does nothing.
func (e *env) begin(name string, flags ...string) error { return e.beginAt("guest", name, flags...) }

func (e *env) show(name string) (one api.Environment, err error) {
	out, err := e.strata("show", name, "--json").Output()
	if err != nil {
		return one, err
	}
	var all []api.Environment
	if json.Unmarshal(out, &all) == nil && len(all) == 1 {
		return all[0], nil
	}
	return one, json.Unmarshal(out, &one)
}
