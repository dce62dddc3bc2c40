// Package resourcetest gives tests real control groups of their own.
package resourcetest

import (
	"context"
	"fmt"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/resource"
)

// Open opens the root called name, which no other test that runs has, and removes it at the test's end.
func Open(t testing.TB, name string) *resource.Root {
	t.Helper()
	groups, err := resource.Open(name)
	require.Host(t, "cgroup", err == nil || !fault.Is(err, fault.Unable) && !fault.Is(err, fault.Denied), fmt.Sprint(err))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := groups.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return groups
}
