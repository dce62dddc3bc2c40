// Package admission says whether a host can keep what it promises: the sum of
// guarantees never passes what the host has less its reserve, whoever asks for
// what at the same time. It is arithmetic, and touches no host.
//
// Words. A *claim* is what one environment takes of the host while it runs: its
// guarantees, and its *overhead*, what strata itself spends for it (keeper, QEMU,
// page tables), which counts as guaranteed memory. The *capacity* is the host's
// memory and processors less the *reserve* that is the host's own. The *book*
// holds the claims of all that run or are about to: a claim is taken before a
// start, and given back after the end.
//
// Rules. Guarantees and overheads together never pass the capacity. Where nobody
// has a guarantee of a resource there is none to break, and nothing is refused:
// overhead alone is only shown. Limits may pass it by the overcommit ratio, where
// one is set. What lowers a claim is never refused. A claim that was restored (its
// environment ran before the book was opened) counts, even where there is no room
// for it; nothing is added then.
//
// The reserve of processors may change while claims are held, as it is measured. It
// never takes what is guaranteed already: it is less then, until it is set again.
//
// A claim that waits is taken as soon as it fits; those that wait are served in the
// order of their asking, and the first one holds up the others. A claim that does
// not wait and fits is taken at once.
//
// Shares turns claims into weights and kept memory for control groups: who has a
// guarantee gets its part of the processors first, and the rest is divided by
// weight.
//
// Book is safe for concurrent use; its one lock is held over arithmetic only.
package admission
