// Package bomb holds the tests that an environment which takes all that it can get hurts
// nobody: processes, memory, disk, descriptors, output, packets. Each bomb has hard limits and goes
// off for a few seconds; a neighbour of the same weight is asked small questions meanwhile.
//
// What is compared is the neighbour's 99th percentile with the bomb going on and with the
// bomb paused right before and after, and what counts is the median over some turns: the
// host may be busy with other things, which come and go. What stays within a tick of the
// kernel is not told apart (see grain). Bombs of all strata, and guests as neighbours, boot
// virtual machines and are asked for.
package bomb
