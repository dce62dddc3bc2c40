package environment

import (
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
)

// The restart policies, as docker has them.
const (
	RestartNo            = "no"
	RestartOnFailure     = "on-failure"
	RestartAlways        = "always"
	RestartUnlessStopped = "unless-stopped"
)

// The delay before a restart. Source: docker's documentation of --restart.
const (
	FirstDelay = 100 * time.Millisecond
	LastDelay  = time.Minute
	Steady     = 10 * time.Second // a run this long sets the delay back
)

// WantsRestart tells whether the policy wants a further run after one that ended by
// itself with exit, having been started restarts times by the policy before.
func WantsRestart(p api.Restart, exit api.Exit, restarts int) bool {
	switch p.Policy {
	case RestartAlways, RestartUnlessStopped:
		return true
	case RestartOnFailure:
		return exit.Status != 0 && (p.Max == 0 || restarts < p.Max)
	}
	return false
}

// Rebooted tells whether a run of this kind ended because its init asked for a
// reboot: the kernel shows that as an end by SIGHUP, which ends no init otherwise.
// Source: kernel/pid_namespace.c, reboot_pid_ns.
func Rebooted(kind string, exit api.Exit) bool {
	return kind == System && exit.Signal == int(syscall.SIGHUP)
}

// RunsAgain tells whether another run follows one that ended by itself with exit.
func (r Record) RunsAgain(exit api.Exit) bool {
	return Rebooted(r.Resolved.Kind, exit) || WantsRestart(r.Spec.Restart, exit, r.Restarts)
}

// AfterReboot tells whether the policy wants a run of an environment that
// stood still when the host went down.
func AfterReboot(p api.Restart, userStopped bool) bool {
	switch p.Policy {
	case RestartAlways:
		return true
	case RestartUnlessStopped:
		return !userStopped
	}
	return false
}

// NextDelay returns how long to wait before the next run, where the last one was
// waited for by delay (0: it was not) and took ran.
func NextDelay(delay, ran time.Duration) time.Duration {
	if delay == 0 || ran >= Steady {
		return FirstDelay
	}
	return min(2*delay, LastDelay)
}
