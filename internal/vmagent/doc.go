// Package vmagent is strata's program inside a guest or machine, cmd/strata-vmagent:
// the first program that the kernel runs, out of a small initramfs.
//
// # Order
//
//	devtmpfs, proc, sysfs · modules · the two ports · "waiting"
//	Run: entropy, clock · network · template, disk, overlay · control group
//	     the same inside as a zone has (package agent/root) · hostname · main program
//
// Before Run nothing is mounted, and nothing of this system is its own yet: its
// memory may be kept and used for any number of others ("warm start"). So nothing
// that must be unique is made or read before the random generator was reseeded; the
// kernel's boot id, for one, is made when it is first read.
//
// # Kinds
//
// App: the agent stays process 1. When the main program has ended, that is said on
// the streams port, the private disk is made whole, and the machine is switched off.
//
// System: process 1 becomes the template's init, on its main thread. Before that it
// starts a companion: itself as another process, with a session of its own and named
// strata-agent-beside, which switches the machine off when the init has ended everything. The companion takes the ports over
// as soon as process 1 has let go of them, which is when it has become the init. A
// host meets it anew.
//
// Installed: the agent is a service of a system that is not strata's, and was there before
// it. It runs nothing but what it is asked for later, beside that system's own programs,
// and knows of no control group, disk or limit.
//
// # Ports
//
// The ports are virtio-serial's. A machine that has none has two serial ports instead
// (serial.go), which differ in this: any number of processes can open one, so a lock says
// whose it is; nobody is told that a host has gone, so a session ends when the next host
// calls; and what came before it was opened is lost or noise, so a host calls until it is
// answered.
//
// # Control groups
//
// The environment's programs are in a group of their own with the limits, and in a
// cgroup namespace that shows it as the whole; the agent is outside. Programs are
// started by package agent/program, born in the group.
//
// # Threads
//
// The main thread builds the inside (its cgroup namespace is the environment's then);
// hosts' requests are answered, programs started and reaped by goroutines. Threads that
// have started a program have lost what capabilities none may have (package
// agent/program, Birth.Narrow), the main one never. agent.mu guards what they share;
// reaper.mu is a leaf.
//
// # What is hostile
//
// The environment's programs, with kind system as root of this very kernel: such a
// root can do to the agent whatever it likes. What that gains it is the two ports,
// and the host takes what comes from them for hostile.
//
// # Size
//
// The program's start is a large part of a guest's where the processor is
// emulated. It imports no formatting, no reflection, no net, and no protobuf (package
// answer); a test pins that.
package vmagent
