package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

func (a *app) commitCommand() *cobra.Command {
	var m moveFlags
	cmd := &cobra.Command{
		Use:   "commit [flags] NAME [TEMPLATE]",
		Short: "Make a template of an environment that stands still",
		Long: `Make a template of an environment that was created or has stopped, at any stratum, and
print the template's name, or its id where none is given. It has the layers of the
environment's own template and one of what was changed, and the command, variables
and other defaults that the environment was made with.

Volumes are not in it, nor files that strata writes for each environment, such as
/etc/hosts. Secrets on the disk are, such as host keys of SSH; so are variables.

Examples:
  strata commit web shop:1
  strata run -d --stratum guest shop:1`,
		Args: between(1, 2, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			name := ""
			if len(args) == 2 {
				name = args[1]
			}
			t, err := watched(ctx, a, c, watching{quiet: m.quiet}, func(ctx context.Context) (api.Template, error) {
				return c.Commit(ctx, args[0], name)
			})
			if err != nil {
				return err
			}
			return a.made(t, name, m)
		}),
		ValidArgsFunction: a.completeOneName,
	}
	m.add(cmd)
	return cmd
}
