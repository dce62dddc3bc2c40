// Package fault holds the errors that strata shows to its callers.
//
// An error says what the caller can do about it. Its Kind is one of a closed
// set; one table maps each kind to its word on the wire, its HTTP status and
// the exit status of the CLI, and a test proves that table total.
//
//	invalid   what was asked is malformed: change the request
//	missing   what it names does not exist
//	conflict  it exists already, or is in a state that forbids this
//	unable    this host, stratum or template cannot do it
//	busy      it could work later: something is in use, full or slow
//	denied    the caller may not
//	full      it would break what the host has guaranteed to others
//	internal  a fault of strata's own, or of the host below it
//
// An error of this package may name the field at fault (a path such as
// "resources.memory" or a flag's name) and carry a hint that says what to do
// next. Several faults found at once are joined with Join; the first decides
// the kind. An error that is not of this package has kind internal.
//
// The package imports nothing of strata.
package fault
