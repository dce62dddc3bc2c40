// Package zone runs environments as zones: programs on the host's own kernel, in
// namespaces, a control group and a user range of their own.
//
// A start is a plan first (plan.go, pure): what the keeper, the agent and the
// control group are told. Applying it (start.go) makes, each undone if a later
// step fails:
//
//	run folder · control group · root tree and volume trees (descriptors only)
//	keeper with the payload waiting · network (stratum.Link) · go
//
// Everything a zone holds on the host hangs on its processes, but for two
// things: its run folder (RUN/env/ID: keeper.sock, status.json, exit.json,
// zone.json) and its control group. Clean removes both.
//
// Live forwards to the keeper and to the control group; one goroutine for each
// waits for the end. If the keeper is lost, the run has crashed: what is left
// in the control group is killed, and the exit says so.
//
// Locks: Driver.mu guards the table of starts, and is a leaf.
//
// What it does not do: networks (stratum.Link), names, restarts, the records of
// environments.
package zone
