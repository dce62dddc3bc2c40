package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/near"
)

// Groups of commands in the help.
const (
	groupRun    = "run"
	groupInside = "inside"
	groupWatch  = "watch"
	groupStock  = "stock"
	groupHost   = "host"
)

// command builds the whole tree of commands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "strata",
		Short: "Run environments as deep as they need, and no deeper",
		Long: `strata runs environments: a template, a private disk, an address and limits,
as shallow as their needs allow.

An environment at the stratum "zone" shares the host's kernel and starts in
milliseconds. Its program's exit status, signals and streams are strata's own.

Examples:
  strata run --rm busybox echo hello
  strata run -d --name web -p 8080:80 debian:nginx
  strata exec -it web sh
  strata ls -a`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknown(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&a.root, "root", "", "folder of a private strata (default: $STRATA_ROOT, else the installed one)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if word := cmd.Flags().Arg(0); cmd == root && word != "" { // whose flags are unknown as well
			return unknown(cmd, word)
		}
		return unknownFlag(cmd, err)
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetHelpCommandGroupID(groupHost)
	root.SetCompletionCommandGroupID(groupHost)
	root.AddGroup(&cobra.Group{ID: groupRun, Title: "Run environments:"}, &cobra.Group{ID: groupInside, Title: "Reach inside:"}, &cobra.Group{ID: groupWatch, Title: "See what they use:"},
		&cobra.Group{ID: groupStock, Title: "Templates and networks:"}, &cobra.Group{ID: groupHost, Title: "This host:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupRun, a.runCommand(), a.createCommand(), a.applyCommand(), a.exportConfigCommand(), a.planCommand(), a.whyCommand(), a.startCommand(), a.stopCommand(), a.killCommand(), a.restartCommand(),
		a.pauseCommand(), a.resumeCommand(), a.suspendCommand(), a.pressResetCommand(), a.nmiCommand(), a.insertCommand(), a.ejectCommand(), a.diskCommand(), a.cardCommand(), a.agentCommand(), a.rmCommand(), a.renameCommand(), a.cloneCommand(), a.commitCommand(), a.moveCommand(), a.setCommand(), a.reclaimCommand(), a.lsCommand(), a.showCommand(), a.waitCommand())
	add(groupInside, a.execCommand(), a.attachCommand(), a.consoleCommand(), a.screenCommand(), a.typeCommand(), a.keyCommand(), a.vncCommand(), a.logsCommand(), a.cpCommand())
	add(groupWatch, a.topCommand(), a.psCommand(), a.resourcesCommand(), a.statsCommand())
	add(groupStock, a.templateCommand(), a.kernelCommand(), a.networkCommand())
	add(groupHost, a.hostCommand(), a.needsCommand(), a.priceCommand(), a.infoCommand(), a.eventsCommand(), a.systemCommand(), a.versionCommand(), a.completionCommand())
	root.AddCommand(a.habits()...)
	a.addFormats(root)
	return root
}

// unknown says that a word is no command of cmd, and what may have been meant.
func unknown(cmd *cobra.Command, word string) error {
	if here, ok := elsewhere[word]; ok && !cmd.HasParent() {
		return fault.Invalidf("%q is not a command of strata", word).Help("what others call so is %s", here)
	}
	cmd.SuggestionsMinimumDistance = 2
	meant := ""
	if all := cmd.SuggestionsFor(word); len(all) > 0 {
		meant = fmt.Sprintf(", did you mean %q?", slices.MinFunc(all, func(a, b string) int { return near.Distance(word, a) - near.Distance(word, b) }))
	}
	return usage(cmd, fmt.Errorf("%q is not a command of %s%s", word, cmd.CommandPath(), meant))
}

// group makes a command that only holds others.
func group(use, short, long string, cmds ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknown(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(cmds...)
	return c
}
