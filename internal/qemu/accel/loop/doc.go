// Package loop runs a loop of instructions by the kernel's KVM and says how fast it
// went. It is strata-agent's command "kvm", a process that is thrown away: a
// processor that hangs in the kernel hangs nothing else, and ends with the process.
//
// It is compiled into strata-agent, so it imports next to nothing.
package loop

import "time"

// Command is the argument that asks for the loop; there are no others.
const Command = "kvm"

// Steps is how many times the loop goes round.
const Steps = 1_000_000

// Budget is how much processor time the loop may take where the processor is as fast
// as usual. One that runs guests takes some milliseconds; a kernel that emulates one by
// traps takes seconds. It is processor time, so that a busy host does not make the
// answer another. Source: measured, 2 ns a step with svm or vmx, also nested; 2,800 ns
// by PVM's.
const Budget = 300 * time.Millisecond

// Factor is how many times the loop may take what it takes without KVM, where that is
// more than Budget: a processor that is emulated itself on a busy host has other times.
// Source: measured, 1 to 2 on a processor, 15 on an emulated one, above 1,000 by PVM's.
const Factor = 100

// Patience bounds the loop where it gets no processor time at all.
const Patience = 10 * time.Second

// The first word of what is said on standard output. What follows is for people,
// but for Runs: there it is how many nanoseconds of processor time the loop took.
const (
	Runs   = "runs"
	Slow   = "slow"   // it does not get done: that will not change by itself
	Failed = "failed" // KVM refuses something, which may be another time
)
