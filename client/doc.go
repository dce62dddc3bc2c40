// Package client speaks to a strata daemon over its unix socket.
//
// Every method is one request; its types are those of package api. A fault of
// the daemon comes back as a *fault.Error of the same kind (or several joined),
// so that callers handle it as if they had called the engine. A daemon that
// cannot be reached is a fault that Unreachable recognizes.
//
// Run, Attach and Exec join a program's streams: they return once the program
// has ended, with how it did. After the daemon has handed such a session to the
// environment's keeper, the daemon may end without the session noticing.
//
// A Client is safe for concurrent use. It holds no state but its connections.
package client
