// Package keep is the keeper: the small process that holds one running
// environment's program, its output and its end, and outlives the daemon.
// cmd/strata-keeper is this package's Run; package keeper is how the daemon
// talks to it, package wire what they say.
//
// # Shape
//
// One goroutine, locked to the main thread, runs one epoll loop (loop). Nothing
// in it blocks but writes to the log and steps of the kernel that are known to
// be short. There are no locks, because there is nothing to share. Whatever may
// have to wait is an entry of the loop:
//
//	daemon    the daemon's socket during the start
//	payload   the payload's socket, its pidfd, the socket of its ready notice
//	source    an output of a program: pipe or terminal
//	input     a program's standard input, while it takes no more
//	client    an attached stream of frames
//	control   the control socket, and conn for each connection to it
//	execution the reports of an exec's start, its socket, its pidfd
//	machine   the port, QEMU's events, its console, what it writes itself, and the
//	          pidfds of the processes beside it
//
// A program is a set of sources, one input and its clients; the main program is
// one, and so is each exec, and a machine's console.
//
// # Machines
//
// Where the payload is QEMU, a program is beyond the port (far): its sources have no
// descriptor, and what comes on its channel is delivered as if it had been read;
// its input goes out as frames. All else (log, clients, attaching, ends) is the
// same code. What the keeper does for all programs with the port, it does without
// waiting: frames that QEMU does not take are queued.
//
// The console is a program that never ends before the machine and waits for no client:
// one that is lossyLimit behind is dropped.
//
// A machine's end is QEMU's. How the run ended is then, in this order: what the
// agent said in Exit; for an init, that it switched off or reset the machine; else a
// crash, in words: why the keeper itself ended the machine, a panic of the kernel
// with the console's last lines, or QEMU's own end with its last words. After a
// panic QEMU has panicGrace to end by itself.
//
// A process beside QEMU that ends first ends the machine: what it did for it, nobody
// does any more.
//
// # Back-pressure
//
// Output that only the log takes, or nobody, is read at paceRate at most (pace).
//
// Output goes to the log first, then to every client: straight into its socket,
// and what that does not take into a queue. While any client's queue holds more
// than queueLimit the program's outputs are not read, so a slow client slows the
// program, as a pipe would. A client that was attached later than the start and
// takes nothing for stuckAfter is dropped, so that it cannot hold up an
// environment for ever; the client of an attached run, and an exec's, may pause
// for as long as it likes (`| less`), since the program is its own.
//
// Beyond a port the program is slowed by not granting it more (windows, see package
// port), so that others go on; at most a window's worth comes while it is blocked.
//
// A client's frames are not read while standard input has bytes that the program
// did not take. A client whose side of the stream has ended is gone: to end the
// input only, it says CloseStdin. When a client of the main program goes, the
// program's input stays open; when an exec's goes, its input ends, and its output
// is thrown away.
//
// # The end
//
// The payload's end, not that of its output, is the end of a run: what is in the
// pipes then is taken, bounded by drainLimit, and who else holds them is not
// waited for. Then, in this order: the log is complete, the exit frame is queued,
// the exit record is written, the control socket is removed, the watchers are
// told, and the keeper stays until its clients have everything (bounded by
// stuckAfter and lingerAfter). The same holds for an exec's program. A machine whose
// main program has told its end, and whose disk nobody wants, is dropped: all of that
// but the socket's removal comes before QEMU's end.
//
// OOM is reported if the cgroup counted an OOM kill during the run and the main
// program itself ended by SIGKILL. A program that survives the loss of a child,
// whatever it then exits with, was not ended by the limit.
//
// # Memory
//
// Buffers are anonymous mappings made when needed and unmapped when empty; the
// Go heap holds small structures only and is given back after a burst of work.
//
// # What is hostile
//
// The payload and everything in it, exec'd programs included: their messages are
// bounded in size and number, descriptors they send are checked by what the
// kernel says of them before anything is done with them. The agent of a machine, and
// all inside it: a frame that the protocol does not allow there, output beyond what
// was granted, or a flood of frames that mean nothing, is the end of the machine; one in
// a system that had none from the start, and may come and go, is not heard any more. What
// it says is bounded in length, and made printable before it is passed on. QEMU is the
// guest's as soon as that has broken out into it: events are bounded, and only read. Clients' frames are
// those of an API user: bounded and refused when malformed. The daemon is trusted.
package keep
