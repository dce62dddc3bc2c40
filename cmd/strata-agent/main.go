// Strata-agent is strata's program inside an environment: PID 1 of a zone of
// kind app, and the last stage of every program started inside. It is run by
// strata only; see package agent.
package main

import (
	"os"
	"runtime"

	"github.com/strata-project/strata/internal/agent"
	"github.com/strata-project/strata/internal/qemu/virtiofs/serve"
)

// The main goroutine stays on the main thread, whose end the keeper would see.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 && os.Args[1] == serve.Command { // on the host, before virtiofsd
		os.Exit(serve.Run(os.Args))
	}
	os.Exit(agent.Run(os.Args))
}
