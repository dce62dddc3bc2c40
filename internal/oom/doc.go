// Package oom reads in the kernel's messages which process it killed for want of
// memory, and in which control group.
//
// Words. A kill is two messages: "oom-kill:" says where the memory was short and names
// group and process, "Killed process" says what that process held. The first is info, so
// that a system that boots quietly shows the second only; the kernel leaves the first out
// where it has just written many (ten in five seconds). The host's is looked up then: a
// process that was killed keeps its number and its groups until its parent has asked for it.
//
// What is hostile in them: a process gives itself its name (15 bytes; the kernel escapes
// what is not printable in /dev/kmsg, but not on a console), and an environment with an
// init of its own names the groups below its own. So each message is cut up from the ends
// whose form is the kernel's alone: the group from the front, where the root's name is the
// kernel's first word for it, and numbers from the back. What does not fit is no kill.
// Everything is bounded: one line, one name.
//
// What it does not do: count. Control groups do, also while nobody listens.
package oom
