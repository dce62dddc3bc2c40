// Package price measures what a stratum costs on this host, keeps what was
// measured, and judges whether it still holds.
//
// # Words
//
//	figure    one thing that is measured: a name, a unit, whether more is better
//	part      figures that the measuring command takes together (package gauge)
//	side      where a part runs: the bare host, or inside an environment
//	pair      one taking on both sides, one right after the other
//	times     how many times the host's cost: the median of the pairs' ratios
//
// # What is pure
//
// Samples, ratios, lines, staleness and the reading of what the measuring command
// says are pure. Measure knows environments by the interface Subject only, and the
// host by a Side, so that it is tested without either. What idles in memory is read
// from /proc and control groups (memory.go).
//
// # Invariants
//
// No figure is made up: one that has no taking says why, and a stratum that was never
// measured has none. What is inside is hostile: what it says is bounded in length, and
// numbers that cannot be are refused. Nothing is waited for without a limit; when the
// time is up, what is left is not measured and says so.
//
// Prices are kept by stratum, so that one can be measured alone. Each keeps the facts
// of the host at its time. Only facts that the stratum depends on make it stale.
package price
