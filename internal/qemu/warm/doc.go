// Package warm keeps systems that have booted, so that a guest need not boot.
//
// # Words
//
//	key     all that a booted system depends on: kernel, initramfs, QEMU, processor, command line
//	image   one system, stopped at "the agent waits, nothing is mounted": its memory and
//	        the state of its devices
//	source  the machine that boots for an image, and ends when it is saved: a Boot
//	clone   a machine that goes on from an image, any number of them at once
//
// # How
//
// The source's memory is a memfd that is shared with the daemon; QEMU's migration
// writes the devices' state (some 200 KB) to another (capability x-ignore-shared:
// memory that is shared is not written). Both are sealed against writing then. A
// clone maps the memory privately: pages it only reads are the image's, once for all
// clones; pages it writes become its own.
//
// A clone may have been taken over by what runs in it. QEMU 7.2 opens its memory for
// writing even where it is private, and would even punch holes into the file when
// its guest gives memory back. Only the seal keeps one clone from changing what the
// others begin as; so images are memfds, and files only from one daemon to the next.
// (From 8.2 on QEMU can be told to open a file for reading only: readonly=on,rom=off.)
// A clone can give no memory back to the host before it ends, since QEMU insists on
// punching holes for that; so machines with memory in a file have no balloon.
//
// On the disk:
//
//	<key>/record.json   what it is, and checksums
//	<key>/memory        sparse
//	<key>/state
//	work/               emptied when the store is opened
//
// An image's folder appears whole or not at all. One that cannot be read, or has
// other checksums than its record says, is removed, and made again. So is one from which
// two clones in a row did not go on (Store.Tell): at once, but ten minutes later where that comes again within as many.
//
// # What must not be in an image
//
// Nothing secret: a source gets no template, no disk, no network and no environment,
// and its agent was asked nothing but Info. What all clones begin with alike,
// though each should have its own:
//
//	random generator     reseeded by the agent before anything else (spec.Run.Entropy)
//	boot id              the kernel makes it when it is first read, which is later
//	clock                set by the agent (spec.Run.Clock); the monotonic one goes on
//	MAC address          set by the agent; the source's is SourceMAC
//	machine-id, keys     are in disks, which are not mounted
//	sizes of disks       announced by Restore, or read again by the agent
//	QEMU's generator     nothing inside draws from it: no rdrand, and copies of a QEMU
//	                     have numbers of the host's
//	where the kernel and the agent lie in memory, canaries, seeds of hash tables
//	                     stay alike in all clones of an image: MaxAge bounds for how long
//
// # What it costs
//
// An image's memory is the daemon's (Options.Resident of them at most), until the last
// clone has ended, too.
//
// Locks: Store.mu guards the tables and is held for no reading, writing or booting.
// One image is made or read by one goroutine at a time; others wait for it, but for Get,
// which waits for no boot.
package warm
