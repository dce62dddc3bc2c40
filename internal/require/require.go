// Package require lets a test ask for what it needs of the machine.
//
// A test that needs root, a tool or a kernel feature says so at run time. Where
// it is missing the test is skipped and says what was missing; if STRATA_REQUIRE
// names it (a list such as "root,mkfs.erofs,loop", or "all"), the test fails
// instead, so that a machine meant to have it cannot pass by skipping.
package require

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Root asks for user id 0.
func Root(t testing.TB) {
	t.Helper()
	Host(t, "root", os.Geteuid() == 0, "the test runs as an ordinary user")
}

// Tool asks for a program on the PATH and returns where it is.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	Host(t, name, err == nil, "the program is not on the PATH")
	return path
}

// Machines asks for the time and the quiet that it takes to boot virtual machines,
// on an emulated processor where need be: `make test-guest` has both, and sets
// STRATA_MACHINES.
func Machines(t testing.TB) {
	t.Helper()
	Host(t, "machines", os.Getenv("STRATA_MACHINES") != "", "make test-guest runs the tests that boot machines")
}

// Host asks for the capability with the given name: has says whether this
// machine has it, why what is missing otherwise.
func Host(t testing.TB, name string, has bool, why string) {
	t.Helper()
	if has {
		return
	}
	for _, demanded := range strings.Split(os.Getenv("STRATA_REQUIRE"), ",") {
		if demanded == name || demanded == "all" {
			t.Fatalf("%s is required here and missing: %s", name, why)
		}
	}
	t.Skipf("needs %s: %s", name, why)
}
