// Package fresh runs a test in a network namespace of its own, so that nothing
// of the host is touched: the test's program is run again, for this one test, in
// a new namespace.
package fresh

import (
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"

	"github.com/strata-project/strata/internal/require"
)

// variable marks the process that runs inside.
const variable = "STRATA_TEST_FRESH_NETNS"

// Namespace returns true in the process inside. Outside it runs the test there,
// reports how it went, and returns false.
func Namespace(t testing.TB) bool {
	t.Helper()
	require.Root(t)
	if os.Getenv(variable) != "" {
		return true
	}
	args := []string{"-test.run=^" + regexp.QuoteMeta(t.Name()) + "$", "-test.v", "-test.timeout=120s"}
	if _, ok := t.(*testing.B); ok {
		args = []string{"-test.run=^$", "-test.bench=^" + regexp.QuoteMeta(t.Name()) + "$", "-test.timeout=120s"}
	}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a namespace of its own: %v\n%s", err, out)
	}
	t.Logf("in a namespace of its own:\n%s", out)
	return false
}
