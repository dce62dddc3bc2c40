// Command strata-keeper holds one running environment: its program, its log and
// its end. The daemon starts one per run and may come and go while it lives; see
// package keep. It is never run by hand.
package main

import (
	"os"
	"runtime"

	"github.com/strata-project/strata/internal/keeper/keep"
)

func init() { runtime.LockOSThread() }

func main() { os.Exit(keep.Run()) }
