// Package keeper is the daemon's side of the keepers: it starts one, finds it
// again after a restart, and asks things of it. Package wire has the contract,
// package keep the keeper itself, package logfile what it writes.
//
// A start has two halves, so that the network can be made between them:
//
//	s, err := keeper.Start(ctx, keeper.Options{…}) // the payload exists and waits: s.PID
//	…                                              // its interface, addresses, routes
//	k, err := s.Go(ctx)                            // the main program runs
//
// Whoever does not come to Go calls Abort, after which nothing of it is left.
//
// The package never waits in a thread: every wait is a descriptor in the runtime's
// poller, so that a daemon with 500 keepers has no more threads than with one.
// A Keeper has no state of its own but the paths and pids, and is safe for
// concurrent use; each call is a connection of its own.
package keeper
