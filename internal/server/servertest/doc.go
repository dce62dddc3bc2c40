// Package servertest is an engine that runs nothing: environments are rows in
// memory, and their programs a few words that this package acts out itself. It
// lets the server, the client and the CLI be tested without privilege.
//
//	echo WORD...   writes the words to standard output
//	err WORD...    writes the words to standard error
//	cat            hands standard input back
//	exit N         ends with the status N
//	spec           writes the environment's Spec as JSON
//	sleep          waits for a signal, tells its number, ends with 128 more
//	size           waits for the size of the terminal and tells it
//	missing        is not found; noexec cannot be executed; lost ends without a word
//
// The package is for tests alone.
package servertest
