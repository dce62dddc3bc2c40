package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) reclaimCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reclaim [--json] NAME...",
		Short: "Give memory back to the host that environments do not use",
		Long: `Give memory back to the host that running environments do not use, and print how
many bytes that were. What is guaranteed to them they keep.

A zone gives the page cache that its files have. A guest or machine gives what its
own kernel does not need, by a balloon that is inflated and let out again, and the
page cache that the host has of its disk. A guest that went on from a saved system has
no balloon: --cold, or the policy idle, starts it with one.

With the policy idle (--reclaim idle, or strata set NAME reclaim=idle) it is done by
itself, when an environment has used less than a twentieth of a processor for five
minutes, and every hour while that goes on.

Examples:
  strata reclaim web db
  strata reclaim --json web | jq .[0].freed
  strata set web reclaim=idle`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			all := []api.Reclaimed{}
			var errs []error
			for _, name := range args {
				got, err := c.Reclaim(ctx, name)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				all = append(all, got)
			}
			if asJSON {
				errs = append(errs, a.printJSON(all))
				return errors.Join(errs...)
			}
			for _, one := range all {
				fmt.Fprintf(a.out, "%s %d\n", one.Environment, one.Freed)
				if one.Kept != "" {
					fmt.Fprintln(a.err, fault.Printable(fmt.Sprintf("%s: by %s only: %s", one.Environment, strings.Join(one.By, " and "), one.Kept)))
				}
			}
			return errors.Join(errs...)
		}),
		ValidArgsFunction: a.completeRunning,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
