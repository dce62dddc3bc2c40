// Package control is the daemon's side of the control port of a guest or machine:
// what it asks of the agent inside. agent.proto is the contract, package meeting how
// the two find one another, package answer the agent's side.
//
// A Client is one session with an agent: it begins with a meeting and ends with
// Close, with the connection, or with the agent's start of another session. Every
// call has a deadline, its context's or Patience, because a system that is paused,
// or that lies, never answers.
//
// The agent is hostile: its messages are bounded by the protocol (4 MiB) and by what they
// decode to (maxFields), the lists and texts that are passed on by bounds of their own, and
// what it says is never more than words and numbers, also where it refuses.
package control

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-ttrpc_out=. --go-ttrpc_opt=paths=source_relative agent.proto
