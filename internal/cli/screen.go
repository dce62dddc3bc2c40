package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

func (a *app) screenCommand() *cobra.Command {
	var output string
	var text bool
	cmd := &cobra.Command{
		Use:   "screen [flags] NAME",
		Short: "Save a picture of a machine's screen, or print its text",
		Long: `Save what a machine's screen shows as a PNG file and print the file's name.

With --text, print what is written on a VGA text screen instead. A console that a
kernel draws with dots is read where its letters are those of the firmware, with a
U+FFFD for each that is not. Other screens are graphical, and refused.

Examples:
  strata screen win
  strata screen -o - win | feh -
  strata screen --text debian`,
		Args: exactly(1, "a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			if text {
				written, err := c.ScreenText(ctx, args[0])
				if err == nil {
					err = a.keep(output, []byte(written), "-")
				}
				return err
			}
			picture, err := c.Screen(ctx, args[0])
			if err != nil {
				return err
			}
			return a.keep(output, picture, args[0]+".png")
		}),
		ValidArgsFunction: a.completeOneName,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "`file` to write, - for standard output (default: NAME.png)")
	cmd.Flags().BoolVar(&text, "text", false, "print the screen's text")
	return cmd
}

// keep writes content to a file and prints its name, or to standard output.
func (a *app) keep(name string, content []byte, usual string) error {
	if name == "" {
		name = usual
	}
	if name == "-" {
		if a.outTTY && !utf8.Valid(content) {
			return fault.Invalidf("a picture is not for a terminal").At("output").Help("give it a file's name, or pipe it")
		}
		_, err := a.out.Write(content)
		return err
	}
	if err := os.WriteFile(name, content, 0o644); err != nil {
		return fault.Wrap(err, "save the screen")
	}
	fmt.Fprintln(a.out, name)
	return nil
}

func (a *app) typeCommand() *cobra.Command {
	var enter bool
	var pace time.Duration
	cmd := &cobra.Command{
		Use:   "type [flags] NAME TEXT",
		Short: "Type text on a machine's keyboard",
		Long: `Type text on a machine's keyboard, which has the layout of the United States.
What it cannot type is refused before anything is typed. The text - is read from
standard input.

Examples:
  strata type --enter debian root
  strata type debian - <answers`,
		Args: exactly(2, "a name, or a text"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			typing := api.Typing{Text: args[1], Pace: unit.Duration(pace)}
			if typing.Text == "-" {
				given, err := io.ReadAll(io.LimitReader(a.in, maxTyped))
				if err != nil {
					return fault.Wrap(err, "read standard input")
				}
				typing.Text = string(given)
			}
			if enter {
				typing.Keys = []string{"ret"}
			}
			return c.Type(ctx, args[0], typing)
		}),
		ValidArgsFunction: a.completeOneName,
	}
	cmd.Flags().BoolVarP(&enter, "enter", "e", false, "press the enter key after it")
	addPace(cmd, &pace)
	return cmd
}

// maxTyped is more than can be typed at once. Unit: bytes.
const maxTyped = 64 << 10

func addPace(cmd *cobra.Command, pace *time.Duration) {
	cmd.Flags().DurationVar(pace, "pace", 0, "time from one key to the next, 5ms to 2s (default 50ms)")
}

func (a *app) keyCommand() *cobra.Command {
	var pace time.Duration
	cmd := &cobra.Command{
		Use:   "key [flags] NAME KEY...",
		Short: "Press keys of a machine's keyboard",
		Long: `Press keys of a machine's keyboard one after another. A key is a name or a
character; keys that are held together are joined by dashes.

Examples:
  strata key win ctrl-alt-delete
  strata key debian down down ret`,
		Args: atLeast(2, "a name, or a key"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return c.Type(ctx, args[0], api.Typing{Keys: args[1:], Pace: unit.Duration(pace)})
		}),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.completeNames(cmd, args, part)
			}
			return someKeys(cmd, nil, part)
		},
	}
	addPace(cmd, &pace)
	return cmd
}

// someKeys are those that people press by name.
var someKeys = few("ret", "esc", "tab", "spc", "backspace", "delete", "up", "down", "left", "right", "home", "end", "pgup", "pgdn",
	"f1", "f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9", "f10", "f11", "f12", "ctrl-alt-delete", "ctrl-c", "alt-f1", "alt-f2", "alt-tab")
