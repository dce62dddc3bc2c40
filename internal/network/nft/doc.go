// Package nft is strata's packet filter: what it is (a value that prints as nft
// does), and how it gets into the kernel.
//
// # Words
//
// A Ruleset is the fixed part: two tables of strata's own, `inet strata` and
// `bridge strata` (with the root's tag behind the name), their sets, maps, chains
// and rules. The rules never change while strata runs. What changes are the
// Elements of the sets and maps: bridges, ports, who may send from which address.
// A Rate is what a link may receive and send in a second; rates have a third table,
// `bridge strata-rates`, which is there only while a link has one (see rate.go).
//
// # Invariants
//
//   - Nothing outside these tables is ever written.
//   - Every change is one batch, which the kernel takes whole or not at all.
//   - The ruleset carries a mark made of its own text (an empty set called
//     "v<hash>"), so a later strata with other rules replaces them, and the same
//     one leaves them, and the connections they carry, alone.
//
// The package does not know environments: it is given names of links, addresses
// and ports.
package nft
