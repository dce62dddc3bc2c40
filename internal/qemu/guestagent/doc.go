// Package guestagent speaks with qemu-guest-agent, which runs inside systems that know
// nothing of strata. Source: QEMU, docs/interop/qemu-ga-ref and qga/qapi-schema.json.
//
// The agent is at the other end of a port of virtio-serial; QEMU shows that as a socket,
// which takes one peer at a time. A request is one line of JSON, as is its answer.
//
// # Sessions
//
// Before each request the two sides find one another: a number drawn at random is sent
// (guest-sync-delimited), and everything is thrown away until it comes back behind a byte
// that no JSON has. So an answer to an earlier request, or one that nobody asked for, is
// never taken for another's. After a failure the socket is connected anew. It stays
// connected otherwise, since an agent without a peer wakes up ten times a second.
//
// # What is hostile
//
// All that comes: whoever is root inside is the agent. Lines are bounded by what was asked
// for, as are their depth and the time that they take; lists are cut; words are made
// printable; addresses are parsed.
//
// Agent.turn is held for one request, and is the only lock.
package guestagent
