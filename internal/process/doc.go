// Package process reads what the kernel says of processes in /proc: for the daemon
// those of a zone, for the agent of a guest or machine those beside it.
//
// What a process is called and which users there are is said by programs that are
// hostile: it is bounded, and never more than printable words. A process may end
// while it is read; it is left out then. Nothing is forked, and no file of an
// environment is opened that could make the reader wait.
//
// What it does not do: choose processes, or know of environments.
package process
