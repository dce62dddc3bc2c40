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

// row is one promise.
type row struct {
	name string
	test func(*testing.T, at) // nil: all of it is seen in the life
	life *chapter             // what it looks at in the life that rows share
}

// looker is the test of a row, or what tells it later what was seen.
type looker interface {
	Helper()
	Error(...any)
	Errorf(string, ...any)
	Fatalf(string, ...any)
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
			common := share(t, b)
			common.still(at{Bed: b, t: t, stratum: stratum}) // so that no row pays for the first use
			for _, r := range rows {
				t.Run(r.name, func(t *testing.T) {
					t.Parallel()
					a := at{Bed: b.For(t), t: t, stratum: stratum, made: new(atomic.Int64), shared: common}
					if r.life != nil {
						a.shared.life(a).tells(t, r.name)
					}
					if r.test != nil {
						r.test(t, a)
					}
				})
			}
		})
	}
}

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
func (a at) exec(t looker, name, line string, flags ...string) bed.Output {
	t.Helper()
	args := append([]string{"exec"}, flags...)
	return a.Try(append(args, name, "sh", "-c", line)...)
}

// show returns what strata says of an environment.
func (a at) show(t looker, name string) api.Environment {
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
func until(t looker, what string, bound time.Duration, met func() bool) {
	t.Helper()
	bound = require.Patience(bound)
	for deadline := time.Now().Add(bound); !met(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, bound)
		}
	}
}

// expect fails unless out is as the row promises.
func expect(t looker, out bed.Output, status int, stdout string) {
	t.Helper()
	if out.Status != status || strings.TrimSpace(out.Stdout) != stdout {
		t.Errorf("exit status %d, output %q; want %d, %q\n%s", out.Status, out.Stdout, status, stdout, out.Stderr)
	}
}

// says fails unless text contains every word.
func says(t looker, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%q does not say %q", text, word)
		}
	}
}
