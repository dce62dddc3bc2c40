// Package virtiofs gives guests their volumes: for each a server that serves
// exactly it, and a device by which QEMU reaches that.
//
// # Words
//
//	volume  a folder or file of the host that an environment has
//	server  virtiofsd: the one of QEMU up to 7.2 in C, or its successor in Rust; strata's own
//	        (package volume) where the host has neither
//	tag     the name of the device that the guest mounts
//
// # How it fits
//
// Open takes hold of the volume (a detached mount, read-only where that is asked
// for, so that nothing that is mounted later is seen) and makes a socket that
// server and QEMU meet on: a listening end for the one, an end that is connected
// already for the other, and no name that anybody else could use. The keeper starts
// Command beside QEMU, in namespaces of its own (Namespaces), as root, in the environment's
// cgroup; that is package serve, which becomes the server. It ends by itself when QEMU closes
// its end.
//
// QEMU needs memory that can be shared (memory-backend-memfd or -file, share=on)
// and, on microvm, virtio-mmio.force-legacy=false.
//
// # What a volume is like
//
// Owners are the host's, as in a zone; root inside writes as root there. Devices
// are neither honoured nor made. Extended attributes, POSIX ACLs, mappings and what is
// mounted below are there. Locks hold among the programs of the environment: the
// servers know no lock that waits, so they are not asked for any, and a program on the host
// or in another environment is not held up by them (in a zone it is). What
// another side changes is seen within a second (cache=auto). A volume keeps
// QEMU from saving the guest's state, so a guest with volumes starts cold.
//
// A socket is no volume here: its listener is under another kernel.
//
// # What it does not do
//
// Use 9p: for owners like a zone's, QEMU itself would have to be root
// (security_model=passthrough), and Debian's cloud kernel has no 9p.
package virtiofs
