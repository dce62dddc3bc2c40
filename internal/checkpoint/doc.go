// Package checkpoint writes down a process that waits, and makes a program of it: whoever
// executes that goes on where the process was.
//
// # Words
//
//	process  any number of threads, all memory private, see below
//	image    its memory and a program, one executable file in memory that nobody can write to
//	copy     a process that executes an image, any number of them at once; what none of them
//	         writes to is in memory once for all
//	given    a descriptor that whoever executes the image has open under the same number
//
// # How
//
// Take stops the process (ptrace), reads its memory (/proc/PID/maps, pagemap, mem), the
// registers of its threads, and what the kernel knows of it, and writes a list of system
// calls that bring all of it about. An image begins as a process with one thread and 256
// bytes of instructions (testdata/restorer.s), which do what is on that list:
//
//	memory       what the kernel has put there goes, but for its vdso, which moves to where
//	             the process had it; files of the host are mapped as they were, and the pages
//	             that the process had changed over them, from the image
//	descriptors  events, polls and signals are made anew, doubles of given ones are doubled
//	signals      handlers, masks, stacks of their own
//	filters      of system calls, in their order (after which nothing can be mapped or opened
//	             that the process itself could not)
//	threads      each goes on by a return from a signal that never came, by which the kernel
//	             sets all of its registers at once. A call that it waited in is made again
//
// What a copy may do is up to whoever executes it: user, capabilities, namespaces, control group and
// root are not in the image, and the list needs no privilege.
//
// # What cannot be written down
//
// Shared memory that is not a file of the host's; timers of the kernel's (timer_create), io_uring
// and sockets that are not given. Take says which. Calls that wait for a span of time wait for
// all of it again. Ids of threads are others than they were; that of the process is the same
// only where both are the first of a process namespace.
//
// A copy has all of the process's secrets, and lies at the same addresses: an image is for
// what has none, and its copies can be told apart by nothing but what they are given.
//
// For x86-64 only: other processors would need instructions and a frame of their own.
//
// There are no locks: Take works on one thread of the caller's, which is the tracer.
package checkpoint
