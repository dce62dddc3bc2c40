// Package enter starts a program inside the namespaces of a running process, as
// a child of the caller.
//
// Entering a user and pid namespace takes a process with one thread, which a Go
// program never is. So the work is done between fork and exec, where the child
// has one thread and its own copy of the memory, by a function that allocates
// nothing, grows no stack and makes raw system calls only:
//
//	caller ── fork ──► first: born in its v2 group, joins the others, setns of everything
//	   │                  └─ clone(CLONE_PARENT) ──► second: inside the pid namespace
//	   │◄── pid of the second ──┘ (ends)                     setsid, descriptors, ids, execveat
//	   └── parent of both
//
// Both report over a pipe: the pid of the second, or the stage that failed and
// its errno. The pipe's end without a failure means that the program was executed.
//
// A v2 group is not joined by writing to it: the kernel would have the writer wait for
// all of its readers (RCU), some ticks of its clock.
//
// Until execveat the second process holds a copy of the caller's memory inside
// the namespaces, so the caller must not be dumpable (PR_SET_DUMPABLE 0): that is
// what keeps programs inside from tracing it.
package enter
