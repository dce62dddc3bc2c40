// Package bomb holds the tests that an environment which takes all that it can get hurts
// nobody: processes, memory, disk, descriptors, output, packets. Each bomb has hard limits and goes
// off for a few seconds; a neighbour is asked small questions meanwhile.
//
// What is compared is the neighbour's 99th percentile with the bomb going on and with the
// bomb paused, in turns. The host may be busy with other things, so that one that is
// disturbed is looked at once more, and answers within a tick of the scheduler are not
// told apart (see tick).
package bomb
