package vmagent

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// installedName is how the agent is started as a service of a system that was there
// before it.
const installedName = "installed"

// installed serves a system that has an init, a root and devices of its own. Programs
// are born where the agent is.
func installed() int {
	calm()
	a := newAgent()
	a.installed, a.asked, a.state = true, true, stateRunning // there is nothing to run
	a.begun.Store(true)                                      // no program is the main one
	var err error
	if a.dev, err = unix.Open("/dev", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return complain(root.Wrap(err, "open /dev"))
	}
	news, err := listen()
	if err != nil {
		return complain(root.Wrap(err, "listen for devices"))
	}
	if err := a.findPorts(news); err != nil {
		return complain(err)
	}
	go a.serve()
	a.stream()
	a.loop()
	return 0
}

func complain(err error) int {
	_, _ = unix.Write(2, []byte("strata-vmagent: "+root.FailureOf(err).Message+"\n"))
	return 1
}

// wholeStats is what the whole system uses; the rest nobody counts for it.
func wholeStats() (s spec.Stats) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return s
	}
	figure := func(name string) int64 {
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, name+":"); ok {
				n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				return n << 10
			}
		}
		return 0
	}
	s.Memory = figure("MemTotal") - figure("MemAvailable")
	s.Swap = figure("SwapTotal") - figure("SwapFree")
	names, err := os.ReadDir("/proc")
	if err != nil {
		return s
	}
	for _, e := range names {
		if _, err := strconv.Atoi(e.Name()); err == nil {
			s.PIDs++
		}
	}
	return s
}
