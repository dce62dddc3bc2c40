package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

func (a *app) templateCommand() *cobra.Command {
	return group("template", "Templates that environments are made from", `Fetch, make, list and remove templates. A template is immutable: read-only layers,
and what an environment made from it does by default.

Examples:
  strata template pull docker.io/library/nginx
  strata template build debian:bookworm --variant systemd
  strata template import rootfs.tar.gz --name mine
  strata template ls`,
		a.templateLsCommand(), a.templateShowCommand(), a.templatePullCommand(), a.templateImportCommand(), a.templateBuildCommand(),
		a.templateTagCommand(), a.templateRmCommand(), a.templatePruneCommand(), a.templateExportCommand(), a.templatePushCommand())
}

func (a *app) templateLsCommand() *cobra.Command {
	var quiet, asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List templates",
		Long: `List templates. Layers that several of them share are counted at each.

Examples:
  strata template ls`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			found, err := c.Templates(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(found)
			}
			if quiet {
				for _, t := range found {
					fmt.Fprintln(a.out, t.ID)
				}
				return nil
			}
			now := time.Now()
			rows := newTable(a.out, "NAME", "ID", "KIND", "PLATFORM", "SIZE", "AGE", "USED BY")
			for _, t := range found {
				names := t.Names
				if len(names) == 0 {
					names = []string{""}
				}
				for _, name := range names {
					rows.row(name, shortID(t.ID), t.Kind, t.OS+"/"+t.Arch, bytesText(t.Size), ago(t.Created, now), fmt.Sprint(len(t.UsedBy)))
				}
			}
			return rows.flush()
		}),
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print ids only")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) templateShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show [flags] TEMPLATE...",
		Aliases: []string{"inspect"},
		Short:   "Show templates",
		Long: `Show what templates hold and what environments made from them do by default. With
--json a list is printed.

Examples:
  strata template show nginx`,
		Args: atLeast(1, "a template"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			found, err := gather(ctx, a, args, c.Template)
			if asJSON {
				if perr := a.printJSON(found); perr != nil {
					return perr
				}
				return err
			}
			for i, t := range found {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				a.printTemplate(t)
			}
			return err
		}),
		ValidArgsFunction: a.completeTemplates,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printTemplate(t api.Template) {
	f := a.facts()
	f.add("names", strings.Join(t.Names, ", "))
	f.add("id", t.ID)
	f.add("kind", t.Kind)
	f.add("platform", t.OS+"/"+t.Arch)
	f.add("size", bytesText(t.Size))
	f.add("source", t.Source)
	f.add("created", t.Created.Local().Format(time.RFC3339))
	f.add("entrypoint", words(t.Config.Entrypoint))
	f.add("command", words(t.Config.Command))
	f.add("workdir", t.Config.WorkDir)
	f.add("user", t.Config.User)
	f.add("env", words(t.Config.Env))
	f.add("stop signal", t.Config.StopSignal)
	f.add("ports", strings.Join(t.Config.Ports, ", "))
	f.add("volumes", strings.Join(t.Config.Volumes, ", "))
	f.add("labels", labelsText(t.Config.Labels))
	if h := t.Config.Health; h != nil {
		f.add("health check", words(h.Test))
	}
	for _, l := range t.Layers {
		f.add("layer", shortID(l.Digest)+" "+bytesText(l.Size))
	}
	f.add("used by", strings.Join(t.UsedBy, ", "))
	_ = f.w.Flush()
}

func (a *app) templateTagCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tag TEMPLATE NAME",
		Short: "Give a template a further name",
		Long: `Give a template a further name. A name that another template has moves to this one.

Examples:
  strata template tag debian:bookworm base`,
		Args: exactly(2, "a template and a name"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return c.TagTemplate(ctx, args[0], args[1])
		}),
		ValidArgsFunction: a.completeTemplates,
	}
}

func (a *app) templateRmCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [flags] TEMPLATE...",
		Aliases: []string{"remove"},
		Short:   "Remove templates",
		Long: `Remove a name of a template, and the template with its last name; by its id, the
template with all of its names. One that an environment is made from is refused.

Examples:
  strata template rm nginx:1.25
  strata template rm 3f2a91c0d4e5`,
		Args: atLeast(1, "a template"),
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return a.each(ctx, args, false, func(ctx context.Context, ref string) error {
				_, err := c.RemoveTemplate(ctx, ref, force)
				return err
			})
		}),
		ValidArgsFunction: a.completeTemplates,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "remove all of its names; never what an environment is made from")
	return cmd
}

func (a *app) templatePruneCommand() *cobra.Command {
	var all, asJSON bool
	cmd := &cobra.Command{
		Use:   "prune [flags]",
		Short: "Remove templates that have no name",
		Long: `Remove templates without a name, and layers that nothing refers to. What an
environment is made from stays.

Examples:
  strata template prune
  strata template prune --all`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			freed, err := c.PruneTemplates(ctx, all)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(freed)
			}
			for _, id := range freed.Removed {
				fmt.Fprintln(a.out, id)
			}
			free := bytesText(freed.Bytes)
			if free == "" {
				free = "0"
			}
			a.say("freed %s", free)
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those with a name that no environment is made from")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
