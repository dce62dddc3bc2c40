// Command strata is the command line of strata; see package cli.
package main

import (
	"os"

	"github.com/strata-project/strata/internal/cli"
)

func main() { os.Exit(cli.Main()) }
