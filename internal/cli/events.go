package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

func (a *app) eventsCommand() *cobra.Command {
	var filters []string
	var since, until string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "events [flags]",
		Short: "Follow what happens",
		Long: `Print what happens to environments, templates, kernels and networks, until
interrupted.

Filters: type=TYPE (environment, template, kernel, network, progress, daemon),
name=NAME, operation=ID. Several types are alternatives, and so are several names.

Examples:
  strata events
  strata events --filter type=environment --filter name=web
  strata events --since 1h --json`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			f, err := eventFilter(filters)
			if err != nil {
				return err
			}
			var errs [2]error
			f.Since, errs[0] = parseMoment("since", since, time.Now())
			f.Until, errs[1] = parseMoment("until", until, time.Now())
			if err := fault.Join(errs[:]...); err != nil {
				return err
			}
			return a.follow(ctx, c, f, asJSON)
		}),
	}
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "`KEY=VALUE` that must hold")
	cmd.Flags().StringVar(&since, "since", "", "also what happened from this `time` on, as far as it is remembered")
	cmd.Flags().StringVar(&until, "until", "", "end at this `time`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, one object per line")
	return cmd
}

func (a *app) follow(ctx context.Context, c *client.Client, f client.EventFilter, asJSON bool) error {
	events, err := c.Subscribe(ctx, f)
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		e, err := events.Next()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF) && !f.Until.IsZero() && !time.Now().Before(f.Until):
			return nil
		case errors.Is(err, io.EOF):
			return fault.Busyf("the daemon ended the stream of events").Help("it was stopped, or this reader was too slow")
		case err != nil:
			return err
		}
		if asJSON {
			err = a.printLine(e)
		} else {
			_, err = fmt.Fprintln(a.out, eventText(e))
		}
		if err != nil {
			return err
		}
	}
}

func eventText(e api.Event) string {
	text := e.Time.Local().Format("2006-01-02T15:04:05.000Z07:00") + " " + e.Type + " " + e.Action
	if name := e.Name; name != "" || e.ID != "" {
		if name == "" {
			name = shortID(e.ID)
		}
		text += " " + name
	}
	var details []string
	for k, v := range e.Detail {
		details = append(details, k+"="+v)
	}
	sort.Strings(details)
	if p := e.Progress; p != nil {
		details = append(details, progressText(*p))
	}
	if len(details) > 0 {
		text += " (" + strings.Join(details, ", ") + ")"
	}
	return fault.Printable(text)
}

// eventFilter reads the values of --filter. Kinds: Invalid.
func eventFilter(filters []string) (f client.EventFilter, err error) {
	for _, one := range filters {
		key, value, _ := strings.Cut(one, "=")
		switch {
		case value == "":
			return f, fault.Invalidf("%q is not a filter", one).At("filter").Help("write KEY=VALUE, such as type=environment")
		case key == "type":
			f.Types = append(f.Types, value)
		case key == "name":
			f.Names = append(f.Names, value)
		case key == "operation":
			f.Operations = append(f.Operations, value)
		default:
			return f, fault.Invalidf("%q is not a filter", key).At("filter").Help("accepted: type, name, operation")
		}
	}
	return f, nil
}
