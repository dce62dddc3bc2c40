// Command strata-vmagent is strata's program inside a guest: the first one that its kernel
// runs, and with kind app process 1 to its end; see package vmagent.
package main

import (
	"os"
	"runtime"

	"github.com/strata-project/strata/internal/vmagent"
)

// Process 1's main thread is the one that becomes a template's init.
func init() { runtime.LockOSThread() }

func main() { os.Exit(vmagent.Run(os.Args)) }
