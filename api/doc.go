// Package api holds the types of strata's REST interface, shared by the daemon,
// the CLI and the Go client. They are plain data: field names are the wire's
// names, and json tags are the contract.
//
// Words are those of docs/architecture.md: an environment is made from a
// template and runs at a stratum. Fields are only ever added; one that is not
// known is refused by the daemon, never ignored. A zero value means "not asked
// for", and its default stands in the field's comment.
//
// A request that takes long carries an operation id in the header
// Strata-Operation; while it runs, events of type "progress" with that id are
// published on GET /v1/events.
package api
