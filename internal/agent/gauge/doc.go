// Package gauge is the agent's measuring command: the same small program on the
// host and inside an environment, so that what differs is the stratum.
//
//	gauge PART:MILLISECONDS[:FOLDER]   measures one part for about that long
//
// Parts, and what each writes to standard output, a line "NAME FIGURE" each:
//
//	hello     nothing: that it ran is what is measured
//	rest      nothing: it sleeps, as a main program that does nothing, and ends
//	          by itself after the time
//	cpu       cpu: steps of integer arithmetic a second
//	memory    memory-access: nanoseconds of one access to 32 MiB in random order
//	syscall   syscall: nanoseconds of one getppid
//	process   process: nanoseconds to start this program and wait for its end
//	disk      disk-write, disk-read: bytes a second in order, written through;
//	          disk-random: reads of 4 KiB a second; disk-fsync: nanoseconds of
//	          an append of 4 KiB and its fsync. FOLDER says where
//	network   port: where it listens; it then serves connections, whose first byte
//	          says what it does: 'e' sends back what comes, 's' reads all and answers
//	          with one byte, 'g' sends until nobody listens, 'q' ends it
//
// It is linked into programs of which a thousand run, so it imports no formatting
// and no network. A fault is one line on standard error, and status 1.
package gauge
