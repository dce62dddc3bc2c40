package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/internal/fault"
)

// complain writes every fault of err in the one way that strata does.
func (a *app) complain(err error) {
	var b strings.Builder
	for _, f := range fault.All(err) {
		b.WriteString(a.paint(red, "strata:") + " " + oneLine(f.Message) + "\n")
		if f.Field != "" {
			b.WriteString("  field: " + fault.Printable(f.Field) + "\n")
		}
		if f.Hint != "" {
			b.WriteString("  hint: " + oneLine(f.Hint) + "\n")
		}
	}
	fmt.Fprint(a.err, b.String())
}

// say tells the user something that is neither product nor fault.
func (a *app) say(format string, args ...any) {
	fmt.Fprintln(a.err, "strata: "+oneLine(fmt.Sprintf(format, args...)))
}

// oneLine keeps a message of several lines together, indented and printable: its words
// may come from an image, an agent or a registry.
func oneLine(text string) string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(text, "\t", " ")), "\n")
	for i, line := range lines {
		lines[i] = fault.Printable(line)
	}
	return strings.Join(lines, "\n    ")
}

const (
	red  = "31"
	bold = "1"
)

// paint colours text for standard error, where colours are wanted.
func (a *app) paint(code, text string) string {
	if !a.errTTY || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// each does one thing for every name: failures are told and do not stop it, and
// the first one decides the exit status. A name is printed once it is done.
func (a *app) each(ctx context.Context, names []string, quiet bool, do func(ctx context.Context, name string) error) error {
	var first error
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := do(ctx, name)
		if interrupted(ctx, err) {
			return err
		}
		if err == nil {
			if !quiet {
				fmt.Fprintln(a.out, name)
			}
			continue
		}
		if len(names) > 1 && !strings.Contains(err.Error(), name) {
			err = fault.Wrap(err, "%s", name)
		}
		a.complain(err)
		if first == nil {
			first = err
		}
	}
	if first == nil {
		return nil
	}
	return exit{status: fault.KindOf(first).Exit()}
}

// interrupted tells that err is the end of a command that a signal ended: there is nothing to say.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}

// usage turns what cobra finds wrong with a command line into a fault.
func usage(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	return fault.Invalidf("%s", strings.TrimSuffix(err.Error(), "\n")).Help("see `%s --help`", cmd.CommandPath())
}

// atLeast, exactly and between check how many arguments there are, and say what is missing.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return usage(cmd, fmt.Errorf("`%s` takes %s: the command is `%s`", cmd.CommandPath(), what, cmd.UseLine()))
	}
}

func exactly(n int, what string) cobra.PositionalArgs { return between(n, n, what) }

func between(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := atLeast(least, what)(cmd, args); err != nil || len(args) <= most {
			return err
		}
		return usage(cmd, fmt.Errorf("%q is one argument too many: the command is `%s`", args[most], cmd.UseLine()))
	}
}

// gather looks up every name and returns what was found, and each failure.
func gather[T any](ctx context.Context, a *app, names []string, get func(context.Context, string) (T, error)) ([]T, error) {
	found := []T{}
	err := a.each(ctx, names, true, func(ctx context.Context, name string) error {
		one, err := get(ctx, name)
		if err == nil {
			found = append(found, one)
		}
		return err
	})
	return found, err
}
