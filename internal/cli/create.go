package cli

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) createCommand() *cobra.Command {
	var s specFlags
	cmd := &cobra.Command{
		Use:   "create [flags] [TEMPLATE [COMMAND [ARG...]]]",
		Short: "Make an environment without starting it",
		Long: `Make an environment from a template and print its name. It is started with
` + "`strata start`" + `. The flags are those of ` + "`strata run`" + `.

Examples:
  strata create --name web -p 8080:80 nginx
  strata create --name job -e TOKEN --read-only busybox sh -c 'echo $TOKEN'`,
		Args: s.template,
		RunE: a.connected(func(ctx context.Context, c *client.Client, args []string) error {
			spec, err := s.build(args)
			if err != nil {
				return err
			}
			made, err := a.create(ctx, c, &s, spec)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, made.Name)
			return nil
		}),
		ValidArgsFunction: a.completeTemplate,
	}
	s.add(cmd)
	a.completeSpecFlags(cmd)
	return cmd
}

// create makes the environment, and fetches its template first where --pull asks
// for that, and a kernel where it is the first guest here.
func (a *app) create(ctx context.Context, c *client.Client, s *specFlags, spec api.Spec) (api.Environment, error) {
	if s.pull == "always" {
		if _, err := a.pull(ctx, c, api.PullRequest{Ref: spec.Template}, s.quiet); err != nil {
			return api.Environment{}, err
		}
	}
	// The first guest of a template has something made for all that follow.
	w := watching{quiet: s.quiet || spec.Stratum != "guest" && spec.Stratum != "machine" && len(spec.Needs) == 0 && spec.Kernel == "", rare: true}
	create := func() (api.Environment, error) {
		return watched(ctx, a, c, w, func(ctx context.Context) (api.Environment, error) { return c.Create(ctx, spec) })
	}
	made, err := create()
	if fault.Is(err, fault.Missing) && (s.pull == "missing" || s.pull == "" && namesRegistry(spec.Template)) && lacksTemplate(ctx, c, spec.Template) {
		if _, err := a.pull(ctx, c, api.PullRequest{Ref: spec.Template}, s.quiet); err != nil {
			return made, fault.Wrap(err, "fetch the template %s, which is not here", spec.Template)
		}
		made, err = create()
	}
	if s.pull != "never" && spec.Kernel == "" && lacksKernel(err) {
		at := spec.Stratum
		if at == "" { // the needs say
			p, err := c.Plan(ctx, spec)
			if err != nil {
				return made, err
			}
			at = p.Choice.Stratum
		}
		if err := a.fetchKernel(ctx, c, at, s.quiet); err != nil {
			return made, err
		}
		made, err = create()
	}
	if err == nil && !s.quiet {
		for _, note := range made.Notes {
			a.say("note: %s", note)
		}
	}
	return made, err
}

// lacksKernel tells whether a guest was refused because no kernel is here.
func lacksKernel(err error) bool {
	all := fault.All(err)
	return len(all) == 1 && all[0].Kind == fault.Missing && all[0].Field == "kernel"
}

// firstKernel is where the first kernel of a stratum comes from, guest where none was
// named: cloud kernels have no drivers for the hardware of machines.
func firstKernel(stratum string) (source, depth string) {
	if stratum == "machine" {
		return "debian:linux-image-" + runtime.GOARCH, stratum
	}
	return "debian", "guest"
}

// fetchKernel gets the kernel that guests or machines boot where there is none. Another one
// that is asked for at the same time is waited for.
func (a *app) fetchKernel(ctx context.Context, c *client.Client, stratum string, quiet bool) error {
	source, depth := firstKernel(stratum)
	if !quiet {
		a.say("no kernel for %ss is here: fetching the kernel %s", depth, source)
	}
	_, err := watched(ctx, a, c, watching{quiet: quiet}, func(ctx context.Context) (api.Kernel, error) {
		return c.AddKernel(ctx, api.KernelRequest{Source: source, First: true, For: depth})
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	const others = "take another kernel: strata kernel add host (this host's own), or strata kernel add FILE.deb"
	first := *fault.All(err)[0]
	if first.Hint == "" {
		return first.Help(others)
	}
	return first.Help("%s; or %s", first.Hint, others)
}

// lacksTemplate tells whether the template is what is missing.
func lacksTemplate(ctx context.Context, c *client.Client, ref string) bool {
	_, err := c.Template(ctx, ref)
	return fault.Is(err, fault.Missing)
}

// namesRegistry tells whether a template's name says where it comes from, such
// as ghcr.io/owner/name. A short name is never guessed to be somebody's.
func namesRegistry(ref string) bool {
	first, _, more := strings.Cut(ref, "/")
	return more && (strings.ContainsAny(first, ".:") || first == "localhost")
}
