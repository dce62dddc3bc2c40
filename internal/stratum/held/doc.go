// Package held is what all drivers have in common whose runs are held by a keeper:
// the run folder and the control group, one start or cleaning of an id at a time,
// what is left of an earlier run, and the wait for the end.
//
// Everything that such a run has on the host hangs on its processes, but for two
// things: its run folder (keeper.sock, status.json, exit.json, notes.json, and what
// the driver adds) and its control group. Clean removes both.
//
// If the keeper is lost, the run has crashed: what is left in the control group is
// killed, and the exit says so.
//
// Locks: Runs.mu guards the table of starts, and is a leaf.
package held
