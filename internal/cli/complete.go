package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/place"
)

// completionPatience bounds what a press of the tab key waits for.
const completionPatience = time.Second

type completer = func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective)

// offer asks a daemon that runs for words; it never starts one.
func (a *app) offer(given []string, ask func(context.Context, *client.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	places, err := place.Find(a.root)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, err := ask(ctx, client.New(places.Socket))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all = slices.DeleteFunc(all, func(word string) bool { return slices.Contains(given, word) })
	return all, cobra.ShellCompDirectiveNoFileComp
}

func namesOf(f client.ListFilter) func(context.Context, *client.Client) ([]string, error) {
	return func(ctx context.Context, c *client.Client) ([]string, error) {
		f.Brief = true
		var found []brief
		err := c.ListInto(ctx, f, &found)
		var names []string
		for _, e := range found {
			names = append(names, e.Name)
		}
		return names, err
	}
}

// completeNames offers environments.
func (a *app) completeNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.offer(args, namesOf(client.ListFilter{All: true}))
}

func (a *app) completeRunning(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.offer(args, namesOf(client.ListFilter{States: []api.State{api.Running}}))
}

func (a *app) completeOneName(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeNames(cmd, args, part)
}

// completeTemplate offers a template, and files after it.
func (a *app) completeTemplate(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeTemplates(cmd, args, part)
}

func (a *app) completeTemplates(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.offer(args, func(ctx context.Context, c *client.Client) ([]string, error) {
		found, err := c.Templates(ctx)
		var names []string
		for _, t := range found {
			names = append(names, t.Names...)
		}
		return names, err
	})
}

func (a *app) completeNetworks(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.offer(args, func(ctx context.Context, c *client.Client) ([]string, error) {
		found, err := c.Networks(ctx)
		var names []string
		for _, n := range found {
			names = append(names, n.Name)
		}
		return names, err
	})
}

// few offers the same words always.
func few(words ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// someSignals are those that people send.
var someSignals = few("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH")

// completeSpecFlags offers the values of flags that are one of a few.
func (a *app) completeSpecFlags(cmd *cobra.Command) {
	for flag, offer := range map[string]completer{
		"kind":     few("app", "system"),
		"stratum":  few(strata...),
		"console":  few("graphical"),
		"firmware": few("bios", "uefi", "secure"),
		"board":    few("q35", "pc"),
		"os":       few("linux", "windows", "bsd", "dos", "other"),
		"reclaim":  few("idle", "off"),

		"boot-once":  few("disk", "cd", "network"),
		"hugepages":  few("2M", "1G"),
		"disk-bus":   few("ahci", "ide", "virtio", "nvme", "scsi"),
		"agent-port": few("virtio", "serial"),
		"nic-model":  few("e1000", "e1000e", "rtl8139", "virtio"),
		"restart":    few("no", "on-failure", "always", "unless-stopped"),
		"pull":       few("always", "missing", "never"),

		"stop-signal": someSignals,
		"need": func(cmd *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
			return a.offer(nil, func(ctx context.Context, c *client.Client) ([]string, error) {
				all, err := c.Needs(ctx)
				var names []string
				for _, n := range all {
					names = append(names, n.Name)
				}
				return names, err
			})
		},
		"kernel": func(cmd *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
			return a.completeKernels(cmd, nil, part)
		},
		"network": func(cmd *cobra.Command, _ []string, part string) ([]string, cobra.ShellCompDirective) {
			words, how := a.completeNetworks(cmd, nil, part)
			return append(words, "none"), how
		},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, offer)
	}
}

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Print a completion script for bash, zsh or fish",
		Long: `Print a script that lets a shell complete commands, flags, and the names of
environments, templates, kernels and networks.

Examples:
  strata completion bash > /etc/bash_completion.d/strata
  strata completion fish > ~/.config/fish/completions/strata.fish`,
		Args:      exactly(1, "a shell"),
		ValidArgs: shells,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			}
			return fault.Invalidf("%q is not a shell that completion is made for", args[0]).At("SHELL").Help("accepted: bash, zsh, fish")
		},
	}
}
