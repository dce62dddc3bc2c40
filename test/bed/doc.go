// Package bed gives a test a whole strata of its own: the built programs, a
// private root in a temporary folder, and a daemon in a network namespace that
// the test made, so that nothing of the host is touched.
//
// When the test is over the bed resets the root, ends the daemon and proves
// that nothing is left: no mount, loop device, cgroup, link, process or file.
//
// The programs are those in the folder STRATA_BIN (as `make test` sets it), or
// are built once per test binary.
package bed
