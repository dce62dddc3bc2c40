// Package resource gives an environment its control group: limits, devices,
// freezing, killing and figures, with one meaning on cgroup v1, hybrid and v2.
//
// Words. A *root* is strata's own parent group, one per strata root, made below
// the top of each hierarchy in use. A *group* is one environment's: it has one
// folder in each hierarchy, side by side with those of all others, so that weights
// are measured against each other whatever the depth. A *mark* (Root.Marked) tells
// one driver's groups from another's: it stands behind the id in a folder's name.
// A *controller's home* is the hierarchy that serves it: a v1 mount, or the unified
// (v2) one. The *layout* is where the controllers are at home: "v1" without a unified
// hierarchy, "v2" where it serves them all, "hybrid" in between.
//
//	ROOT/ID               weight, memory that is kept, processors to run on: of all of it
//	ROOT/ID/payload       what the keeper starts: limits, devices, freeze, kill, figures
//	ROOT/ID/keeper        the keeper, which outlives what the payload's group ends
//	ROOT/late.keepers     those that outlive their environment, for who reads slowly
//
//	v1, hybrid   cpu/  memory/  pids/     shares and limits
//	             blkio/                   those of disks, where it is mounted
//	             unified/                 freeze, kill, CPU time, devices by BPF
//	             cpuset/ROOT/ID           flat, and only for those that are bound to processors
//	             freezer/, devices/, cpuacct/   only where there is no unified
//	v2           all in one; and, with an owner, in the payload's
//	             ROOT/ID/payload/init     the processes, owned by the environment's root
//	             ROOT/ID/payload/exec     processes that join later
//
// init and exec exist where the group was made with an owner, that is for an
// environment whose own init makes groups: its limits are one level above what
// it can write to, and its root may put no process beside its groups (the
// kernel's rule of no inner processes), so that exec needs a place of its own.
//
// Entering. A thread writes "0" to each of ThreadFiles (v1 tasks, which move the
// thread only; Run does it) and starts the child with SysProcAttr.UseCgroupFD on
// OpenUnified (RunKeeper and OpenKeeper for the keeper). A single-threaded process may
// write to each of ExecFiles instead.
// CLONE_NEWCGROUP in that same clone takes the group for the root of the new
// namespace, in the v1 hierarchies as in the unified one.
//
// Invariants: nothing is remounted; no group of others is changed, but for
// enabling a controller for the children of a group that is ours to delegate (or
// of the top one); a failed Create leaves no folder; Remove may be called again.
//
// On v2 a group cannot have both processes and controllers for its children. So
// under a service manager the root lies in the service's own group only where the
// daemon is started in a leaf of it (systemd's Delegate=yes and DelegateSubgroup=,
// 254 and later), else at the top. In a container, where the top has processes,
// the daemon moves itself into a leaf (ROOT-daemon).
//
// A Root and a Group are safe for concurrent use; there are no locks but the
// one around the loaded device programs.
//
// Limits are a group's own. A share (Root.Share) is what it gets beside others,
// and depends on all: package admission works it out.
//
// What it does not do: networks, rlimits and the sizes of disks.
package resource
