// Package agent is strata's program inside a zone: PID 1 of every environment of
// kind app, and the last stage of every program that is started inside.
//
// It is one static program with several commands:
//
//	init         becomes PID 1 of a zone: builds the root, starts the main
//	             program or becomes the template's init
//	enter        runs inside a zone already; applies a wire.Process and executes it
//	tar-create   writes a tar of a path to standard output (see package files)
//	tar-extract  unpacks a tar from standard input
//	stat         says what a path is
//	gauge        measures processor, disk or network (see package gauge)
//
// # Order inside init
//
// The namespaces, the id mapping and the cgroup are there when init starts, and
// all trees are descriptors. Init builds the whole root while the daemon still
// connects the network, then waits for {go}:
//
//	private propagation · root over / · proc, sys, cgroup, dev · masks
//	tmpfs · volumes · files · pivot_root, the host's tree gone · hostname
//	{go} · console · main program
//
// # What is hostile
//
// The image is: every path in it is resolved with openat2 in the new root, and
// those that strata's own mounts go to must not hold links at all. Masks go by
// the descriptor of the mounted proc, never by a path. The zone's programs are:
// the agent is not dumpable, so that they cannot trace it, and leaves them no
// descriptor. Its program belongs to the host's root, whom no id inside means, so
// nobody inside can write to it. /etc/passwd and /etc/group are read with bounds.
//
// An init (kind system) may mount and unmount in its own namespaces, masks
// included: there, what keeps the host's proc files closed is that they belong to
// ids that the zone does not have. The flags of volumes are locked (package mount).
//
// # Memory
//
// PID 1 stays for as long as the environment runs, a thousand of them on a host,
// so this package imports no formatting, no reflection and no network, and gives
// back what only the start needed (see idle.go).
package agent
