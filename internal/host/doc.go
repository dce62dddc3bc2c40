// Package host finds out what the host can do for strata, by doing it.
//
// A probe tries one thing, such as cloning a user namespace or mounting an
// image, in a place of its own (detached mounts, a network namespace on a thread
// that ends, a temporary file) and leaves nothing behind. What it finds is a
// Finding: whether it works, how that was found out, and what is lost without
// it. A probe that looks for a file only says so.
//
// KVM is judged by running code in it: its device opens on hosts where no guest
// starts. Where it is not usable that takes up to half a second.
//
// The probes run side by side, each bounded in time; the others take
// some ten milliseconds together. Firewalls and other programs' networks are the network package's.
package host
