// Package store keeps the records of environments on disk.
//
// An environment has a folder state/environments/<id>; its record is record.json
// in it, beside its disk and its log. A folder without record.json is a create
// that was not finished.
//
// Invariants:
//
//   - A record is replaced, never changed in place: whoever reads sees the old one
//     or the new one, whatever instant the daemon was killed at.
//   - A removal is one rename of the folder into state/trash; from then on the
//     environment does not exist. What lies in the trash is deleted when there is
//     time, by this daemon or by the next.
//   - A folder comes from a small stock of spare ones, made ahead in state/spare;
//     until it is renamed to its id it is nobody's.
//   - A record of a newer form, or one that cannot be read, is reported and left
//     where it is; it is never overwritten or deleted.
//
// Durability is chosen by the writer: see docs/adr/0002-durability.md.
//
// It is safe for concurrent use, but two writes of the same record at once have no
// order: the engine holds a lock per environment. Two processes must not share a
// folder; Lock sees to that.
package store
