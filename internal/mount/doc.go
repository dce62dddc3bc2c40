// Package mount makes trees out of layers, disks and host folders, with the
// kernel's file-descriptor mount interface.
//
// Words: a *tree* is a mount that is attached nowhere and lives as long as a
// file descriptor of it does, or, once somebody has attached it, as long as the
// mount namespace it went into. A *layer* is a read-only EROFS image, named by
// its digest. The *user range* of an environment is 65,536 host ids from a base
// up; an idmapped tree shows the ids 0..65,535 that are stored on disk as that
// range, so inside the environment's user namespace they read 0..65,535 again
// and nothing on disk is ever shifted.
//
// Invariants:
//
//   - In the host's mount namespace this package leaves layer mounts only, one
//     for each digest at Layers' folder, because two mounts of one image would
//     hold its page cache twice. All else is a tree: killing the process that
//     holds it unmounts it.
//   - Trees are private (no propagation) and never honour device files.
//     set-user-id works: the range makes it mean the environment's own users.
//   - What Overlay and Bind return has its read-only and nodev locked: root
//     inside, with all capabilities over its own namespaces, cannot lift them
//     (seal.go).
//   - An overlay of a disk is writable only through the user range it was made
//     for: its upper and work folders are reached over an idmapped mount, by
//     the credentials of the range's root (see overlay.go for why).
//
// Kernels: idmapped EROFS and overlay layers are in 5.19 and later. Overlay
// layers by file descriptor are in 6.13 and later; before, the overlay is put
// together on a thread with a mount namespace of its own. EROFS reads an image
// file without a loop device from 6.12 on.
//
// Hostile input: what a disk holds may have been written by a guest's kernel.
// Its folders are opened beneath its root without following links, and no
// overlay feature is on that trusts what it stores there beyond names of the
// environment's own layers (metacopy and index are off).
//
// Volumes are where the range does not help: with the owners of the host side,
// root inside is root there, and a set-user-id file it leaves on a volume is
// root's for whoever on the host can run it. Read-only volumes have neither.
//
// Rights: CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, and CAP_SYS_PTRACE, which
// reading another process's namespaces takes.
//
// Locks: Layers.mu and IDMaps.mu are leaves; neither is held while waiting for
// anything but the kernel.
//
// Merged is the exception to the user range: for making an image out of layers it
// shows them with the owners that are stored, to one thread and what that starts.
//
// What it does not do: attach trees inside an environment (the agent does),
// decide on ranges (the daemon does), make images (template and disk do).
package mount
