// Package program starts programs inside an environment: it looks up the user
// with the environment's own files, and applies limits, capabilities, filter,
// terminal and streams on the way to execve. The agents of zones and of guests
// share it, so that a program finds the same at every depth.
//
// # Words
//
// An Image is a wire.Process in the form that system calls take: nothing is
// allocated between fork and exec. Become turns the calling process into it; Fork
// makes a child of it, and Start one that shares the parent's memory until then,
// which is quicker. Both work in a process of any number of threads, as often and
// as much at once as one likes. There is no further program of strata's between
// fork and the program itself.
//
// # What holds between fork and exec
//
// The child is the copy of one thread; the Go runtime does not work in it. It
// makes raw system calls only, on a stack that was grown before. A child with
// streams of its own closes first of all what is not its own: a start that hangs
// (a working folder on a file system whose server is stuck) then keeps no other
// program's pipes open.
//
// How far a child came is known from a pipe, which a successful execve closes, or from the
// memory that it shares, which the kernel changes then.
//
// Who forks also reaps: this package never waits for a child.
//
// # What is hostile
//
// /etc/passwd and /etc/group are the environment's and read with bounds; the
// terminal is opened by strata's own devpts and never by a name that a program
// could have replaced.
//
// It imports no formatting and no reflection: it is in every environment's memory.
package program
