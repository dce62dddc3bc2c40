package cli

import (
	"context"
	"fmt"

	"github.com/strata-project/strata/internal/envfile"
	"github.com/strata-project/strata/internal/fault"
)

// makeNetworks makes what the environments of a file are to be put on.
func (w *application) makeNetworks(ctx context.Context, counts map[string]int) error {
	for _, n := range w.nets {
		if n.Action != envfile.Create {
			continue
		}
		if _, err := w.c.CreateNetwork(ctx, n.Make); err != nil {
			return w.file.LocateNetwork(n.Name, err)
		}
		counts["created"]++
	}
	return nil
}

// removeNetworks removes the project's networks that the file no longer has, which nothing
// of it is on any more.
func (w *application) removeNetworks(ctx context.Context, counts map[string]int) error {
	for _, n := range w.nets {
		if n.Action != envfile.Remove {
			continue
		}
		if err := w.c.RemoveNetwork(ctx, n.Name); err != nil {
			return fault.Wrap(err, "remove the network %s", n.Name)
		}
		counts["removed"]++
	}
	return nil
}

// printNetworks writes one line for each network that is made or removed.
func (a *app) printNetworks(steps []envfile.NetworkStep) {
	for _, n := range steps {
		switch n.Action {
		case envfile.Create:
			fmt.Fprintln(a.out, fault.Printable("+ network "+n.Name+": create"))
		case envfile.Remove:
			fmt.Fprintln(a.out, fault.Printable("- network "+n.Name+": remove (it is of the project and not in the file)"))
		}
	}
}
