// Command strata-agent is strata's program inside an environment: PID 1 of a zone of
// kind app, and the last stage of every program started inside. It is run by
// strata only; see package agent.
package main

import (
	"os"
	"runtime"

	"github.com/strata-project/strata/internal/agent"
	"github.com/strata-project/strata/internal/qemu/accel/loop"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/virtiofs/serve"
	"github.com/strata-project/strata/internal/tool/treat"
)

// The main goroutine stays on the main thread, whose end the keeper would see.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] { // on the host, before QEMU, virtiofsd, e2fsck and mkfs.erofs
		case confine.Command:
			os.Exit(confine.Run(os.Args))
		case serve.Command:
			os.Exit(serve.Run(os.Args))
		case treat.Command:
			os.Exit(treat.Run(os.Args))
		case loop.Command: // on the host, whether KVM runs anything
			os.Exit(loop.Run())
		}
	}
	os.Exit(agent.Run(os.Args))
}
