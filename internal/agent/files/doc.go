// Package files holds the agent's commands that copy files in and out of an
// environment. They run inside it, as its root, so that whatever a hostile link
// there points at is the environment's own.
//
//	tar-create PATH   writes PATH, whose link is not followed, to standard output;
//	                  the top entry has PATH's last name
//	tar-extract DIR   unpacks standard input into DIR; no entry leaves it
//	stat PATH         writes what PATH is, as api.PathStat in JSON
//
// Owners, modes, times, hard links and extended attributes are kept. Sockets and what is
// in the kernel's own file systems are left out, and nothing can make device nodes inside
// a zone, so one in a stream is a fault. A fault is one line of JSON on standard error, as api.Error has it.
package files
