// Package environment knows what an environment is: its name, its record, its
// states, what may be asked of it, and what a spec means once its template is
// known. It is pure: it reads no file, no clock but the one it is given, and
// starts nothing.
//
// # States
//
// The states here are finer than the public ones (api.State), because the engine
// must tell apart what users need not:
//
//	Made      → created    made, never started
//	Starting  → starting   a driver is starting it
//	Running   → running
//	Paused    → paused
//	Stopping  → stopping   the user asked for its end
//	Waiting   → starting   it ended, and the restart policy's delay runs
//	Stopped   → stopped
//	Suspended → suspended  written down as a whole; a start goes on with it
//	Removing  → removing   its record is going
//	Gone      → (none)     nobody finds it any more
//
// The table in state.go is the only place that says which event leads where. A
// move that is not in it is a conflict that names both states.
//
// # Record
//
// A Record is what is kept of an environment on disk. Its Phase is not a state
// but an intent: what a daemon that finds the record should make true (see
// package engine).
//
// # What it does not do
//
// It does not know whether a template, a network or a folder exists; the engine
// asks. It does not choose a stratum; package planner does.
package environment
