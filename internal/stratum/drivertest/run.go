package drivertest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum"
)

// one is one promise of every driver.
type one struct {
	name  string
	needs stratum.Capability // 0: every driver
	test  func(*suite)
}

// Run runs the whole contract. newFixture is called once.
func Run(t *testing.T, newFixture func(t *testing.T) Fixture) {
	f := newFixture(t)
	if f.Patience == 0 {
		f.Patience = usualPatience
	}
	if f.Crowd == 0 {
		f.Crowd = usualCrowd
	}
	before := f.Host(t)
	t.Run("each", func(t *testing.T) {
		for _, cases := range [][]one{lifeCases, streamCases, processCases, insideCases, observeCases, powerCases} {
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					if c.needs&f.Driver.Capabilities() != c.needs {
						t.Skipf("the stratum %s does not promise it", f.Driver.Stratum())
					}
					t.Parallel()
					c.test(newSuite(t, f))
				})
			}
		}
	})
	for _, c := range aloneCases {
		t.Run(c.name, func(t *testing.T) { c.test(newSuite(t, f)) })
	}
	settled(t, f, before)
}

func newSuite(t *testing.T, f Fixture) *suite {
	ctx, cancel := context.WithTimeout(context.Background(), 3*f.Patience)
	t.Cleanup(cancel)
	return &suite{t, f, ctx}
}

// settled waits until the host is as it was: the kernel lets go of mounts and
// loop devices a moment after the last process.
func settled(t *testing.T, f Fixture, before string) {
	t.Helper()
	var after string
	for end := time.Now().Add(require.Patience(5 * time.Second)); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if after = f.Host(t); after == before {
			return
		}
	}
	t.Errorf("the host is not as it was:\n%s", difference(before, after))
}

func difference(before, after string) string {
	var b strings.Builder
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range is {
		if !contains(was, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	for _, line := range was {
		if !contains(is, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	return b.String()
}

func contains(all []string, line string) bool {
	for _, one := range all {
		if one == line {
			return true
		}
	}
	return false
}
