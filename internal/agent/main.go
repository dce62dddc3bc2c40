package agent

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/files"
	"github.com/strata-project/strata/internal/agent/gauge"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// Run is the whole of cmd/strata-agent; it returns the exit status. The caller
// has locked the goroutine to the process's main thread.
func Run(args []string) int {
	if len(args) < 2 {
		return usage()
	}
	switch args[1] {
	case "init":
		guard()
		return initialize(&keeper{sock: wire.PayloadSyncFD})
	case "enter":
		guard()
		return enter(&keeper{sock: wire.ExecSyncFD})
	}
	if len(args) == 3 {
		if args[1] == gauge.Command {
			return gauge.Run(args[2])
		}
		if status, ok := files.Run(args[1], args[2]); ok {
			return status
		}
	}
	return usage()
}

// guard makes sure that no program of the zone can look into this process or
// take its descriptors, and that none of them is handed on.
func guard() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // cannot fail with 0
	_ = unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	// It was executed from a descriptor, so the kernel calls it by a number.
	name := []byte("strata-agent\x00")
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
	unix.Umask(0o022)
	runtime.LockOSThread()
}

func usage() int {
	say("strata-agent is run by strata, inside an environment\n")
	return 2
}

func say(text string) { _, _ = unix.Write(2, []byte(text)) }
