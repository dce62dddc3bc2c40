package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/envfile"
	"github.com/strata-project/strata/internal/fault"
)

// applyFlags are those of apply.
type applyFlags struct {
	file                                                string
	dryRun, prune, recreate, yes, asJSON, schema, quiet bool
	timeout                                             time.Duration
}

func (a *app) applyCommand() *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use:   "apply -f FILE [flags]",
		Short: "Make environments what a file says",
		Long: `Make environments what an environment file says: show what differs, make and start
what is missing, change what differs. A second apply does nothing, and says so. The
file's fields are in docs/reference/environment-file.md; those of an environment are
all that ` + "`strata create`" + ` knows.

Limits, labels and the restart policy change while it runs, and so does a disk as far as
it can become larger in use; further it takes a stop and a start. For everything else
an environment has to be made anew, without what is on its disk: that is refused unless
--recreate is given. Before anything is stopped or removed you are asked, or have to say
--yes.

Environments start after those that they depend on, and after what of them they wait
for. With --prune what this file's project made, and the file no longer has, is removed.

Examples:
  strata apply -f strata.yaml --dry-run
  strata apply -f strata.yaml --prune --yes
  strata apply --schema > strata.schema.json`,
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.schema {
				_, err := a.out.Write(envfile.Schema())
				return err
			}
			return a.connected(func(ctx context.Context, c *client.Client, _ []string) error { return a.apply(ctx, c, f) })(cmd, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "environment `file`; - for standard input")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show what differs, and do nothing")
	flags.BoolVar(&f.prune, "prune", false, "remove what the file's project made and the file no longer has")
	flags.BoolVar(&f.recreate, "recreate", false, "make anew what cannot be changed; what is on its disk is lost")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask before something is stopped or removed")
	flags.DurationVar(&f.timeout, "timeout", 5*time.Minute, "how long each environment may take to be what others wait for")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON: what differed, and what became of it")
	flags.BoolVar(&f.schema, "schema", false, "print the JSON schema of environment files, and do nothing")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing but what was asked for")
	_ = cmd.MarkFlagFilename("file", "yaml", "yml")
	return cmd
}

// apply reads the file, shows what differs, asks, and carries it out.
func (a *app) apply(ctx context.Context, c *client.Client, f applyFlags) error {
	file, err := a.readEnvironmentFile(ctx, f.file)
	if err != nil {
		return err
	}
	work := &application{app: a, c: c, file: file, flags: f}
	if err := work.plan(ctx); err != nil {
		return err
	}
	if !f.asJSON {
		a.printNetworks(work.nets)
		a.printDifference(work.steps)
	}
	err = work.allowed()
	if err == nil && !f.dryRun {
		err = work.carryOut(ctx)
	}
	if f.asJSON {
		if perr := a.printJSON(work.result()); perr != nil {
			return perr
		}
	}
	return err
}

// readEnvironmentFile reads a file, or standard input; Kinds: Invalid, Missing.
func (a *app) readEnvironmentFile(ctx context.Context, path string) (envfile.File, error) {
	if path == "" {
		return envfile.File{}, fault.Invalidf("no file was named").At("file").Help("write strata apply -f strata.yaml")
	}
	name, dir := path, filepath.Dir(path)
	if path == "-" {
		name, dir = "standard input", "."
	}
	var text []byte
	var err error
	done := make(chan struct{})
	go func() { // a pipe may never be written, and whoever interrupts is not to wait for it
		defer close(done)
		text, err = a.fileText(path, name)
	}()
	select {
	case <-ctx.Done():
		return envfile.File{}, ctx.Err()
	case <-done:
	}
	if err != nil {
		return envfile.File{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return envfile.File{}, fault.Invalidf("the folder of %s cannot be found: %w", name, err).At("file")
	}
	return envfile.Read(text, name, dir)
}

// fileText reads as much of a file, or of standard input, as a file may have, and a byte.
func (a *app) fileText(path, name string) ([]byte, error) {
	from := io.Reader(a.in)
	if path != "-" {
		f, err := os.Open(path)
		switch {
		case os.IsNotExist(err):
			return nil, fault.Missingf("there is no file %s", path).At("file")
		case err != nil:
			return nil, fault.Invalidf("the file cannot be read: %w", err).At("file")
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, envfile.MaxBytes+1))
	if err != nil {
		return nil, fault.Invalidf("%s cannot be read: %w", name, err).At("file")
	}
	return text, nil
}

// marks stand before what is done to an environment.
var marks = map[string]string{envfile.Create: "+", envfile.Change: "~", envfile.Move: "~", envfile.Restart: "~", envfile.Replace: "!", envfile.Remove: "-", envfile.None: "="}

// printDifference writes one line for each environment, and one for each field that differs.
func (a *app) printDifference(steps []step) {
	for _, s := range steps {
		fmt.Fprintln(a.out, fault.Printable(marks[s.Action]+" "+s.Name+": "+actionText(s.Step)))
		for _, d := range s.Fields {
			fmt.Fprintln(a.out, fault.Printable("    "+d.Field+": "+or(d.From, "(not set)")+" -> "+or(d.To, "(not set)")+" ("+howText(d.How)+")"))
		}
		for _, n := range s.Notes {
			fmt.Fprintln(a.out, fault.Printable("    note: "+n))
		}
	}
}

func actionText(s envfile.Step) string {
	start := ""
	if s.Start {
		start = " and start"
	}
	switch s.Action {
	case envfile.Create:
		return "create" + start + reason(s.Why)
	case envfile.Change:
		return "change" + start
	case envfile.Move:
		return "move to " + s.MoveTo + start
	case envfile.Restart:
		return "stop, change and start"
	case envfile.Replace:
		return "replace" + start + "; what is on its disk is lost"
	case envfile.Remove:
		return "remove" + reason(s.Why)
	}
	if s.Start {
		return "start"
	}
	return "nothing to do"
}

func howText(how string) string {
	return map[string]string{envfile.Live: "live", envfile.Move: "moves, with its disk", envfile.Restart: "takes a stop and a start", envfile.Replace: "takes --recreate"}[how]
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// allowed asks before what stops or removes something, and refuses what has to be asked for.
func (w *application) allowed() error {
	var replaced, hard []string
	for _, s := range w.steps {
		switch s.Action {
		case envfile.Replace:
			replaced = append(replaced, s.Name)
			hard = append(hard, s.Name)
		case envfile.Remove, envfile.Restart, envfile.Move:
			hard = append(hard, s.Name)
		}
	}
	if len(replaced) > 0 && !w.flags.recreate && !w.flags.dryRun {
		return fault.Conflictf("%s cannot be changed as the file says, only made anew; nothing was done", strings.Join(replaced, ", ")).At("recreate").
			Help("take the difference back, or add --recreate: what is on the disk is lost")
	}
	for _, n := range w.nets {
		if n.Action == envfile.Remove {
			hard = append(hard, "network "+n.Name)
		}
	}
	if len(hard) == 0 || w.flags.yes || w.flags.dryRun {
		return nil
	}
	if w.flags.file == "-" || w.flags.asJSON || !term.IsTerminal(int(w.app.in.Fd())) {
		return fault.Conflictf("%s would be stopped or removed; nothing was done", strings.Join(hard, ", ")).At("yes").Help("look at the difference, and add --yes")
	}
	fmt.Fprintf(w.app.err, "strata: %s will be stopped or removed. Go on? [y/N] ", strings.Join(hard, ", "))
	var answer string
	_, _ = fmt.Fscanln(w.app.in, &answer) // no answer is no
	if !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
		return fault.Conflictf("nothing was done")
	}
	return nil
}

func (a *app) exportConfigCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export-config [flags] NAME...",
		Short: "Print environments as an environment file",
		Long: `Print the environment file that would make these environments, as they were asked
for and changed since. Applied elsewhere it makes the same; what is on their disks is
not in it.

Examples:
  strata export-config web db > strata.yaml
  strata export-config web | ssh other strata apply -f -`,
		Args: atLeast(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			envs, err := gather(ctx, a, args, c.Get)
			if err != nil {
				return err
			}
			f, notes, err := envfile.Of(envs)
			if err != nil {
				return err
			}
			nets, err := c.Networks(ctx)
			if err != nil {
				return err
			}
			f = f.WithNetworks(nets)
			for _, n := range notes {
				a.say("note: %s", n)
			}
			if asJSON {
				return a.printJSON(f)
			}
			text, err := f.Write()
			if err != nil {
				return err
			}
			_, err = a.out.Write(text)
			return err
		}),
		ValidArgsFunction: a.completeNames,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the API's names of fields")
	return cmd
}
