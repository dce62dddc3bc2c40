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
// The run folder, the control group and the wait for the end are package held's.
// Besides those two, everything that a zone holds on the host hangs on its processes.
//
// What it does not do: networks (stratum.Link), names, restarts, the records of
// environments.
package zone
