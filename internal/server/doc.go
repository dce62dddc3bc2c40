// Package server puts the engine on the wire: REST and JSON over a unix socket.
//
// The routes are written once, as Go types, and api/openapi.json is generated
// from them (`go generate`); a test fails where the file is stale. What a
// request may hold is what its type says: an unknown field, an unknown query
// parameter and a value out of bounds are refused before the engine sees them,
// all at once, each with the path of the field and what would be accepted.
//
// Every answer that is not a success is one api.Error; its kind decides the
// HTTP status by package fault. A panic is an internal fault, is logged, and
// ends that one request.
//
// Interactive streams (attach, exec) are upgraded: after the answer 101 the
// connection's descriptor goes to the engine, which hands it to the
// environment's keeper; the server keeps nothing of it, no goroutine and no
// buffer. Until it has seen the 101 a client sends nothing, so no byte can be
// lost in a buffer; one that does is refused. What goes wrong after the 101 is
// told in a frame of type stream.Failure.
//
// The engine is seen through the small interfaces of this package, so that
// tests run against a fake (package servertest).
//
// The package holds no state of environments, and it never exits the process.
package server
