// Package qemu knows QEMU from outside: which one the host has (Find), how a guest
// is written down as its command line (Guest), and how a running one is asked (QMP).
//
// QEMU may have been taken over by what runs in it. What it says on a monitor is
// bounded and never more than words and numbers; it is given everything by
// descriptor and sees no file of the host's but those of package confine.
package qemu
