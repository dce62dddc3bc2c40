// Package cli is the program strata: one file per command.
//
// Standard output carries the product (names, tables, JSON, bytes) and nothing
// else; everything said about it goes to standard error. Every listing has
// --json, whose shape is that of package api and only grows. Colours appear on
// a terminal only, and not with NO_COLOR.
//
// Exit statuses: run and exec end with the program's own; with 127 where it was
// not found, 126 where it cannot be executed, 125 where strata itself failed.
// Every other command ends with that of its fault's kind (package fault), usage
// errors with 2. A command that takes several names goes on after a failure,
// tells each, and ends with the status of the first.
//
// Where no daemon listens the CLI starts one, if it is root and no systemd unit
// is installed for that; STRATA_AUTOSTART=no keeps it from doing so.
//
// The package imports the client and the wire types, never the engine, and does
// nothing before main that takes time: `strata version` is measured.
package cli
