package cli

import (
	"context"
	"time"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/envfile"
	"github.com/strata-project/strata/internal/fault"
)

// waitReady waits until environments are ready; with timeout 0 for ever.
func (a *app) waitReady(ctx context.Context, c *client.Client, names []string, timeout time.Duration) error {
	w := &application{c: c}
	return a.each(ctx, names, true, func(ctx context.Context, name string) error {
		limited, cancel := ctx, context.CancelFunc(func() {})
		if timeout != 0 {
			limited, cancel = context.WithTimeout(ctx, timeout)
		}
		defer cancel()
		err := w.until(limited, envfile.Dependency{Name: name, Until: envfile.Ready})
		if limited.Err() != nil && ctx.Err() == nil {
			return fault.Busyf("%s was not ready within %s", name, timeout).Help("see strata show %s, and what it writes: strata logs, or strata console", name)
		}
		return err
	})
}
