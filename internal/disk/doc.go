// Package disk makes and mounts the private disks of environments: sparse ext4
// images whose size is the environment's real disk limit.
//
// Words: an *image* is the file; it is *attached* while a loop device (or a
// virtual machine) has it; a *ready* disk is one of the default size that the
// pool has made, attached and mounted ahead, so that Create is a rename and
// Mount hands out what is there. The *golden* image is the empty file system
// that ready disks are copied from.
//
// Invariants:
//
//   - An image is attached at most once. The lock on its open file description
//     (flock) says so: the loop device holds that description, so the lock
//     outlives the daemon and ends with the last mount. Hold gives the same
//     lock to who attaches an image by other means.
//   - Nothing attached outlives its users: loops are AUTOCLEAR, mounts are
//     trees (package mount), so a killed daemon leaks none.
//   - No half-made image is ever seen under its name: it is made under another
//     and renamed, never over an existing file.
//   - A file system grows in use only within what was set aside when it was made
//     (resize_inode), which the kernel does in steps that each are one transaction; and
//     its image is on disk at its new length before. So it is whole at every moment.
//   - On disk root is 0:0; owners are never shifted.
//
// A full private disk is ENOSPC inside and concerns nobody else. A full host
// shows inside a zone as I/O errors, and has a guest or machine stand still until there
// is room (package keep); Create therefore refuses while the host's file
// system has less than a reserve left. Images are sparse, so the sum of all
// limits may pass what the host has.
//
// Speed (bench_test.go, 2 shared cores, virtio disk, ext4 host; medians): a ready
// disk is created in 0.1 ms and mounted in 0.01 ms, a cold one in 2-3 ms and 3-7 ms.
// Sequential reading and writing go at the host's own speed, many small files
// faster, for their metadata waits in this file system's own journal. Not so
// fsync: it commits two journals, and takes 1.1 to 2.2 times as long as the
// host's once the blocks are there, 3 to 6 times on a new disk.
//
// Hostile input: a guest's kernel writes the image itself, so its ext4 may be
// crafted. The host then mounts it for a zone, runs e2fsck and resize2fs on
// it for Grow, and e2fsck before it is attached where its superblock tells of errors.
// These two are confined to it (package treat). It is mounted nodev, errors=remount-ro,
// and its folders are opened without following links; what remains is the kernel's ext4
// driver parsing it, which docs/threat-model.md counts among the host's kernel.
//
// Locks: Pool.mu guards the lists only and is a leaf; Pool.making keeps golden
// images from being made twice, and is taken before none but mu.
//
// What it does not do: snapshots of a disk in use, foreign formats (qcow2).
package disk
