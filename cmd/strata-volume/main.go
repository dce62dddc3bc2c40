// Command strata-volume serves one volume to one guest or machine, on hosts that have no
// virtiofsd. It is run by strata only; see package volume.
package main

import (
	"os"

	"github.com/strata-project/strata/internal/qemu/virtiofs/volume"
)

func main() { os.Exit(volume.Run(os.Args)) }
