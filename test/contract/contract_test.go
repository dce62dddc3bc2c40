// Package contract holds strata's promises to its users as tests: one source for
// every stratum. The rows are those of docs/contract.md, by name.
//
// STRATA_STRATA names the strata to run at (default: zone).
package contract

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// at is a bed seen from one stratum.
type at struct {
	*bed.Bed
	t       *testing.T
	stratum string
	made    *atomic.Int64
	shared  *shared
}

// shared is what the rows of one stratum have together, each made when it is first asked
// for: where there is a kernel to boot a start takes long, and most rows only look.
type shared struct {
	still  func(at) string // the name of still's environment
	system func(at) string // the name of system's
	booted sync.Mutex      // held by the row that uses system
}

// row is one promise.
type row struct {
	name string
	test func(*testing.T, at)
}

var rows []row

// promise adds rows; each file adds its own from an init function.
func promise(more ...row) { rows = append(rows, more...) }

func strata() []string {
	if list := os.Getenv("STRATA_STRATA"); list != "" {
		return strings.Split(list, ",")
	}
	return []string{"zone"}
}

func TestContract(t *testing.T) {
	b := bed.New(t)
	for _, stratum := range strata() {
		t.Run(stratum, func(t *testing.T) {
			if stratum != "zone" {
				require.Tool(t, "qemu-system-x86_64")
				bed.Kernel(t, b)
			}
			if stratum == "machine" {
				bed.MachineKernel(t, b)
			}
			b.Run("run", "--rm", "--stratum", stratum, "busybox", "true") // so that no row pays for the first use
			common := share(t, b)
			for _, r := range rows {
				t.Run(r.name, func(t *testing.T) {
					t.Parallel()
					r.test(t, at{Bed: b.For(t), t: t, stratum: stratum, made: new(atomic.Int64), shared: common})
				})
			}
		})
	}
}

// stillSays is what the main program of still's environment writes when it begins.
const stillSays = `echo "user $(id -u):$(id -g), host $(hostname), in $(pwd)"; exec sleep 1000000`

// stillPath is its PATH.
const stillPath = "/bin:/sbin:/usr/bin:/usr/sbin:/odd"

// share returns what the rows of a stratum share; it goes when all of them have ended.
func share(t *testing.T, b *bed.Bed) *shared {
	s := new(shared)
	once := func(name string, args func(at) []string) func(at) string {
		var begin sync.Once
		var out bed.Output
		return func(a at) string {
			begin.Do(func() {
				out = a.run(append([]string{"-d", "--name", name}, args(a)...)...)
				t.Cleanup(func() { b.Try("rm", "-f", name) })
			})
			if out.Status != 0 {
				a.t.Fatalf("start %s: exit status %d\n%s", name, out.Status, out.Stderr)
			}
			return name
		}
	}
	s.still = once("still", func(at) []string {
		return []string{"-e", "A=1", "-e", "B=2", "-e", "PATH=" + stillPath, "-w", "/tmp", "busybox", "sh", "-c", stillSays}
	})
	s.system = once("system", func(a at) []string { return []string{bed.Debian(t, b)} })
	return s
}

// still returns the name of an environment of the stratum that runs, for rows that only
// look at it by exec, and write nothing that another could see.
func (a at) still() string { return a.shared.still(a) }

// boots tells whether a start boots a kernel, and may be emulated: a row then takes
// fewer of many that differ in nothing else.
func (a at) boots() bool { return a.stratum != "zone" }

// TestEveryRowIsDocumented holds the table of docs/contract.md and the tests together.
func TestEveryRowIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	table, _, _ := strings.Cut(string(data), "\n## ") // the others are kept elsewhere, as they say
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z][a-z-]+) \|`).FindAllStringSubmatch(table, -1) {
		documented[m[1]] = true
	}
	delete(documented, "row")
	for _, r := range rows {
		if !documented[r.name] {
			t.Errorf("%s is tested and not in docs/contract.md, or tested twice", r.name)
		}
		delete(documented, r.name)
	}
	for name := range documented {
		t.Errorf("%s is in docs/contract.md and not tested", name)
	}
}

// name makes up a name for an environment of this test, and removes it at its end.
func (a at) name(t *testing.T) string {
	name := fmt.Sprintf("%s-%d", strings.ToLower(t.Name()[strings.LastIndex(t.Name(), "/")+1:]), a.made.Add(1))
	t.Cleanup(func() { a.Try("rm", "-f", name) })
	return name
}

// boot is how long a system may take to come up that takes d as a zone: one with a
// kernel of its own may have to run on an emulated processor.
func (a at) boot(d time.Duration) time.Duration {
	if a.stratum == "zone" {
		return d
	}
	return 4 * d
}

// run is `strata run --stratum … args`.
func (a at) run(args ...string) bed.Output {
	return a.Try(append([]string{"run", "--stratum", a.stratum}, args...)...)
}

// sh runs a shell line in a fresh environment that is removed afterwards.
func (a at) sh(t *testing.T, line string, flags ...string) bed.Output {
	t.Helper()
	args := append([]string{"--rm", "--name", a.name(t)}, flags...)
	return a.run(append(args, "busybox", "sh", "-c", line)...)
}

// start makes a running environment with a shell line as its main program.
func (a at) start(t *testing.T, line string, flags ...string) string {
	t.Helper()
	name := a.name(t)
	args := append([]string{"-d", "--name", name}, flags...)
	if out := a.run(append(args, "busybox", "sh", "-c", line)...); out.Status != 0 {
		t.Fatalf("start %s: exit status %d\n%s", name, out.Status, out.Stderr)
	}
	return name
}

// exec runs a shell line inside a running environment.
func (a at) exec(t *testing.T, name, line string, flags ...string) bed.Output {
	t.Helper()
	args := append([]string{"exec"}, flags...)
	return a.Try(append(args, name, "sh", "-c", line)...)
}

// show returns what strata says of an environment.
func (a at) show(t *testing.T, name string) api.Environment {
	t.Helper()
	out := a.Try("show", name, "--json")
	if out.Status != 0 {
		t.Fatalf("show %s: %s", name, out.Stderr)
	}
	var env api.Environment
	text := strings.TrimSpace(out.Stdout)
	if strings.HasPrefix(text, "[") {
		var all []api.Environment
		if err := json.Unmarshal([]byte(text), &all); err != nil || len(all) != 1 {
			t.Fatalf("show %s: %v in %s", name, err, text)
		}
		return all[0]
	}
	if err := json.Unmarshal([]byte(text), &env); err != nil {
		t.Fatalf("show %s: %v in %s", name, err, text)
	}
	return env
}

// until waits for a condition of the outside world, checked again and again.
func until(t *testing.T, what string, bound time.Duration, met func() bool) {
	t.Helper()
	bound = require.Patience(bound)
	for deadline := time.Now().Add(bound); !met(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, bound)
		}
	}
}

// expect fails unless out is as the row promises.
func expect(t *testing.T, out bed.Output, status int, stdout string) {
	t.Helper()
	if out.Status != status || strings.TrimSpace(out.Stdout) != stdout {
		t.Errorf("exit status %d, output %q; want %d, %q\n%s", out.Status, out.Stdout, status, stdout, out.Stderr)
	}
}

// says fails unless text contains every word.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}
