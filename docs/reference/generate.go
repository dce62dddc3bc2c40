// Command reference writes what is generated of strata's documentation: this
// folder's cli.md, api.md, needs.md, resources.md and environment-file.schema.json, and api/openapi.json. `make generate` runs it.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/strata-project/strata/internal/cli"
	"github.com/strata-project/strata/internal/envfile"
	"github.com/strata-project/strata/internal/planner"
	"github.com/strata-project/strata/internal/server"
	"github.com/strata-project/strata/internal/server/servertest"
	"github.com/strata-project/strata/internal/settings"
)

//go:generate go run .

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func write() error {
	s := server.New(servertest.New(), slog.New(slog.DiscardHandler))
	for path, content := range map[string]func(io.Writer) error{
		"cli.md": cli.Reference,
		"api.md": s.Reference,

		"needs.md":     planner.Reference,
		"resources.md": settings.Reference,

		"environment-file.schema.json": func(w io.Writer) error { _, err := w.Write(envfile.Schema()); return err },

		filepath.Join("..", "..", "api", "openapi.json"): func(w io.Writer) error {
			text, err := s.OpenAPI()
			if err != nil {
				return err
			}
			_, err = w.Write(text)
			return err
		},
	} {
		var b bytes.Buffer
		if err := content(&b); err != nil {
			return err
		}
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}
