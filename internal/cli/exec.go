package cli

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) execCommand() *cobra.Command {
	var p api.Process
	var env, envFiles []string
	var keys string
	var detach bool
	cmd := &cobra.Command{
		Use:   "exec [flags] NAME COMMAND [ARG...]",
		Short: "Run a further program in a running environment",
		Long: `Run a further program inside an environment that runs. This command ends with the
program's exit status: 0-255 its own, 125 where strata failed, 126 where the program
cannot be executed, 127 where it was not found. With --detach it ends once the program
runs, which goes on with an empty standard input; what it writes is dropped.

Examples:
  strata exec web nginx -t
  strata exec -it -u postgres db psql
  strata exec -d web sh -c 'sleep 60; nginx -s reload'
  strata exec -i web sh -c 'cat > /srv/index.html' < index.html`,
		Args:        atLeast(2, "a name and a command"),
		Annotations: programStatus,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			var err error
			for _, path := range envFiles {
				lines, ferr := readEnvFile(path)
				err = fault.Join(err, ferr)
				p.Env = append(p.Env, lines...)
			}
			if err != nil {
				return err
			}
			if p.Env, err = parseEnv(append(p.Env, env...), os.LookupEnv); err != nil {
				return err
			}
			p.Command = args[1:]
			if detach {
				p.Stdin = false
				return programFault(c.ExecDetached(ctx, args[0], p))
			}
			s := session{tty: p.TTY, input: p.Stdin, detach: keys}
			end, err := a.join(ctx, s, func(ctx context.Context, streams client.Streams) (api.Exit, error) {
				p.Rows, p.Cols = streams.Size.Rows, streams.Size.Cols
				return c.Exec(ctx, args[0], p, streams)
			})
			if errors.Is(err, client.ErrDetached) {
				return nil
			}
			if err != nil {
				return programFault(err)
			}
			return ended(end)
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeRunning(cmd, args, part)
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&detach, "detach", "d", false, "leave the program alone once it runs")
	f.BoolVarP(&p.Stdin, "interactive", "i", false, "keep standard input open")
	f.BoolVarP(&p.TTY, "tty", "t", false, "give the program a terminal")
	f.StringArrayVarP(&env, "env", "e", nil, "`NAME[=value]` for the program; without a value yours is handed on")
	f.StringArrayVar(&envFiles, "env-file", nil, "`FILE` with a variable on each line")
	f.StringVarP(&p.WorkDir, "workdir", "w", "", "working `directory` inside")
	f.StringVarP(&p.User, "user", "u", "", "`user[:group]` inside, names or ids")
	f.StringVar(&keys, "detach-keys", "", "`keys` that leave a session (default "+defaultDetachKeys+")")
	return cmd
}
