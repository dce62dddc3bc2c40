package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/price/chart"
)

// priceFlags are the flags of `strata price`.
type priceFlags struct {
	api.PriceRequest
	more         []string // of --strata
	kept, asJSON bool
	report       string
}

func (a *app) priceCommand() *cobra.Command {
	var f priceFlags
	cmd := &cobra.Command{
		Use:   "price [flags]",
		Short: "Measure what each stratum costs on this host",
		Long: `Measure what each stratum costs on this host beside the bare host: time to start and
stop, memory when idle, processor, system calls, processes, disk, network. Both sides
are measured in turn; medians are shown, and how many times the host's cost they are.
It takes some minutes, with --quick less than one. What was measured is kept, and
` + "`strata plan`" + ` and ` + "`strata why`" + ` show it. A stratum that this host cannot run is left
out, with the reason. What each figure means is in docs/reference/price.md.

Examples:
  strata price --quick
  strata price --strata zone,guest --template debian --report price.html
  strata price --kept
  strata price --kept --json`,
		Args: exactly(0, ""),
		RunE: a.connected(func(ctx context.Context, c *client.Client, _ []string) error { return a.price(ctx, c, f) }),
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.Quick, "quick", false, "take less than a minute, and be less exact")
	flags.StringVar(&f.Template, "template", "", "template to measure with (default busybox)")
	flags.StringArrayVar(&f.Strata, "stratum", nil, "measure only this stratum: zone, guest or machine (repeatable)")
	flags.StringSliceVar(&f.more, "strata", nil, "the same of several, such as zone,guest")
	flags.BoolVar(&f.kept, "kept", false, "measure nothing: show what was measured last")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	flags.StringVar(&f.report, "report", "", "also write a report into this `file`, .html or .svg")
	_ = cmd.RegisterFlagCompletionFunc("stratum", few(strata...)) // the flag is there
	_ = cmd.RegisterFlagCompletionFunc("strata", severalStrata)
	_ = cmd.RegisterFlagCompletionFunc("template", a.completeTemplate)
	return cmd
}

// price measures, or asks for what was measured, and shows it.
func (a *app) price(ctx context.Context, c *client.Client, f priceFlags) error {
	f.Strata = append(f.Strata, f.more...)
	if f.kept && (f.Quick || f.Template != "" || f.Strata != nil) {
		return fault.Invalidf("--kept measures nothing, so it takes none of --quick, --template and --stratum").At("kept").Help("leave one of them out")
	}
	draw, err := reportOf(f.report)
	if err != nil {
		return err
	}
	var p api.Price
	if f.kept {
		p, err = c.Price(ctx)
	} else {
		p, err = watched(ctx, a, c, watching{}, func(ctx context.Context) (api.Price, error) { return c.MeasurePrice(ctx, f.PriceRequest) })
	}
	if err != nil {
		return err
	}
	if draw != nil {
		var b bytes.Buffer
		if err := draw(&b, p); err != nil {
			return err
		}
		if err := os.WriteFile(f.report, b.Bytes(), 0o644); err != nil {
			return fault.Unablef("write the report: %w", err).At("report")
		}
	}
	if f.asJSON {
		return a.printJSON(p)
	}
	return chart.Terminal(a.out, p)
}

// severalStrata offers the strata that a list does not have yet.
func severalStrata(_ *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
	list := begun[:strings.LastIndex(begun, ",")+1]
	var offered []string
	for _, at := range strata {
		if !slices.Contains(strings.Split(list, ","), at) {
			offered = append(offered, list+at)
		}
	}
	return offered, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// reportOf returns what draws a report, by the ending of its file's name, and holds that its folder
// is there, before minutes go by. Kinds: Invalid, Missing.
func reportOf(file string) (func(io.Writer, api.Price) error, error) {
	if file == "" {
		return nil, nil
	}
	draw := map[string]func(io.Writer, api.Price) error{".html": chart.HTML, ".svg": chart.SVG}[filepath.Ext(file)]
	if info, err := os.Stat(filepath.Dir(file)); draw != nil && (err != nil || !info.IsDir()) {
		return nil, fault.Missingf("there is no folder %s for the report", filepath.Dir(file)).At("report")
	}
	if draw != nil {
		return draw, nil
	}
	return nil, fault.Invalidf("%q is no report that strata writes", file).At("report").Help("end the name with .html or .svg")
}
