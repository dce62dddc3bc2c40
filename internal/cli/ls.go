package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

// brief is what the table of ls needs of an environment: decoding no more than
// that keeps a long list quick.
type brief struct {
	Name     string
	State    api.State
	Health   string
	Trouble  string
	Ready    bool
	Stratum  string
	Kind     string
	Template string
	Exit     *api.Exit
	Created  time.Time
	Address  struct{ IPv4 string }
	Spec     struct{ Ports []api.Port }
}

func (a *app) lsCommand() *cobra.Command {
	var all, quiet, asJSON bool
	var filters []string
	cmd := &cobra.Command{
		Use:     "ls [flags]",
		Aliases: []string{"list"},
		Short:   "List environments",
		Long: `List environments that run, or all of them with -a.

Filters: name=PART, label=NAME, label=NAME=VALUE, state=STATE (created, starting,
running, paused, stopping, stopped, suspended, removing). Several names are
alternatives, and so are several states; of several labels all must be there.

Examples:
  strata ls
  strata ls -a --filter state=stopped
  strata ls -q --filter label=team=web
  strata ls --json
  strata ls --format '{{.name}} {{.template}}'`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			f, err := listFilter(filters)
			if err != nil {
				return err
			}
			f.All = all
			if asJSON {
				var raw json.RawMessage
				if err := c.ListInto(ctx, f, &raw); err != nil {
					return err
				}
				return a.printJSON(raw)
			}
			f.Brief = true
			var found []brief
			if err := c.ListInto(ctx, f, &found); err != nil {
				return err
			}
			return a.printList(found, quiet)
		}),
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that are stopped")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "`KEY=VALUE` that must hold")
	return cmd
}

func (a *app) printList(found []brief, quiet bool) error {
	if quiet {
		var b strings.Builder
		for _, e := range found {
			b.WriteString(e.Name + "\n")
		}
		_, err := fmt.Fprint(a.out, b.String())
		return err
	}
	now := time.Now()
	t := newTable(a.out, "NAME", "STATE", "STRATUM", "KIND", "TEMPLATE", "ADDRESS", "PORTS", "AGE")
	for _, e := range found {
		t.row(e.Name, stateText(e.State, e.Health, e.Trouble, e.Exit), e.Stratum, e.Kind, e.Template, e.Address.IPv4, portsText(e.Spec.Ports), ago(e.Created, now))
	}
	return t.flush()
}

// stateText adds to a state what a user wants to know next.
func stateText(s api.State, health, trouble string, exit *api.Exit) string {
	switch {
	case s == api.Running && trouble != "":
		return "running (in trouble)" // show says what
	case s == api.Running && health != "":
		return "running (" + health + ")"
	case s == api.Stopped && exit != nil && exit.Crash != "":
		return "stopped (crashed)"
	case s == api.Stopped && exit != nil && exit.OOM:
		return "stopped (out of memory)"
	case s == api.Stopped && exit != nil:
		return fmt.Sprintf("stopped (%d)", exit.Status)
	}
	return string(s)
}

func portsText(ports []api.Port) string {
	var all []string
	for _, p := range ports {
		text := fmt.Sprintf("%d:%d", p.HostPort, p.Port)
		if p.HostIP != "" {
			ip := p.HostIP
			if strings.Contains(ip, ":") {
				ip = "[" + ip + "]"
			}
			text = ip + ":" + text
		}
		if p.Protocol == "udp" {
			text += "/udp"
		}
		all = append(all, text)
	}
	return strings.Join(all, ",")
}

// listFilter reads the values of --filter. Kinds: Invalid.
func listFilter(filters []string) (f client.ListFilter, err error) {
	for _, one := range filters {
		key, value, given := strings.Cut(one, "=")
		switch {
		case !given || value == "":
			return f, fault.Invalidf("%q is not a filter", one).At("filter").Help("write KEY=VALUE, such as state=stopped")
		case key == "name":
			f.Names = append(f.Names, value)
		case key == "label":
			f.Labels = append(f.Labels, value)
		case key == "state" || key == "status":
			f.States = append(f.States, api.State(value))
		default:
			return f, fault.Invalidf("%q is not a filter", key).At("filter").Help("accepted: name, label, state")
		}
	}
	return f, nil
}
