// Package virtual is what guests and machines have in common: a system of its own in
// QEMU, with strata's agent inside.
//
// # Words
//
//	hardware  what QEMU makes: memory, processors, devices; a stratum's own
//	launch    a whole start as a value, but for descriptors
//	inside    what the agent makes in it: root, control group, network, main program
//	boot      from QEMU's start until the agent answers
//
// # A start
//
// It is prepared first (Prepare: all that is to be known, nothing made), then made
// (Attempt), each step undone if a later one fails:
//
//	run folder · control group · image files, sockets, volumes' servers, tap
//	keeper, with QEMU confined by package confine · the agent answers · Run
//
// What is the environment's own is told to the agent (package vmagent/spec). Memory and
// process limits are kept inside by the system's kernel, processor limits by the
// host's, on QEMU's control group.
//
// A first system by KVM that QEMU does not bring up as far as its agent is started once
// more by TCG (AttemptTwice). A boot has time for as long as it goes on (Patient).
//
// # Who talks to whom
//
// The keeper has the streams of every program, the console, and QEMU's events, for
// the run's whole life. The driver has the agent's control port (Live.ask) and QEMU's
// monitor, and lets go of both when the daemon ends.
//
// # What is on the host
//
// What package held has, and in the run folder control.sock and qmp.sock. All else
// hangs on QEMU's process: disk, tap, volumes' servers.
//
// Locks: Driver.mu guards the filters; agent.mu the session; Live.mu what Live was
// told. All are leaves but agent.mu, which is held while an agent is met.
package virtual
