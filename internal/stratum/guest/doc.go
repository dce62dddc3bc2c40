// Package guest runs environments as guests: an operating system with its own
// kernel that knows it is virtual, on QEMU's microvm with nothing but virtio.
//
// Package virtual does what guests and machines have in common, and says how. A
// guest's own are its hardware (package qemu) and its warm start (package qemu/warm):
//
//	source   a machine that is booted only to be saved, when its agent waits
//	warm     a guest that goes on from there; one that cannot is booted (cold)
//
// The machine has the same devices whatever the environment is, since a saved system
// goes on in the same ones.
package guest
