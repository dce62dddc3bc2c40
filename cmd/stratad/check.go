package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/host"
	"github.com/strata-project/strata/internal/network"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/stratum/virtual"
)

// check is what the host can do, in the words of the wire.
func check(ctx context.Context, p place.Places) []api.Finding {
	var all []api.Finding
	for _, f := range host.Check(ctx, virtual.VerdictFile(p)) {
		all = append(all, api.Finding{Group: f.Group, Name: f.Name, OK: f.OK, Unknown: f.Unknown, Needed: f.Needed,
			Detail: f.Detail, How: f.How, Lost: f.Lost, Fix: f.Fix})
	}
	return all
}

// checkHost is `stratad check`: what a daemon would answer to `strata host check`,
// for hosts on which none runs, or can run. It needs no root folder and touches none.
func checkHost(ctx context.Context, o options) error {
	net, err := network.Open(ctx, network.Options{Tag: o.places.Tag, Log: o.log})
	if err != nil {
		return err
	}
	defer net.Close()
	found := append(check(ctx, o.places), engine.FromHost(net).Check(ctx)...)
	return printFindings(o.stdout, found)
}

func printFindings(w io.Writer, found []api.Finding) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(found); err != nil {
		return fmt.Errorf("print the findings: %w", err)
	}
	return nil
}
