// Package dns answers names on the gateways of strata's networks.
//
// It runs as a process of its own, which outlives the daemon, so that running
// environments never lose it. Environments find one another by NAME and by
// NAME.strata, each within its own network, and by address (PTR); everything
// else is asked of the host's own servers, but for isolated networks, where
// there is nothing else.
//
// # Files, in one folder
//
//	names      what to answer; the daemon replaces it whole, and it is looked at for every question,
//	           so an answer is never older than the file
//	names.sock the daemon asks here whether the process is alive, of which build and in which
//	           network namespace, has it listen on new networks ("sync"), or end ("quit")
//
// # Bounds
//
// Every question is from a hostile peer: messages, questions under way, TCP
// connections, time and the rate of each asker are bounded, and what passes a
// bound is dropped or refused.
package dns
