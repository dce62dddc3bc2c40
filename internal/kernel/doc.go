// Package kernel keeps the kernels of guests and machines, and makes what they
// boot from.
//
// Words: a kernel is a record here, content-addressed: an uncompressed vmlinux,
// and the modules that a virtual machine may need, decompressed and without
// signatures. A source is where one comes from: a Debian package, the host's
// /boot, a template, a file. A Wanted names modules; a Set is what they come to
// with a given kernel, dependencies first. An initramfs is a Set with an agent as
// /init, made once for each (kernel, agent, set).
//
// Folders below the store's, all of them readable by everybody, since QEMU runs
// as a user of its own and gets the folder read-only:
//
//	<digest>/record.json   what is known of it; the digest is that of its content
//	<digest>/vmlinux
//	<digest>/modules/<name>.ko
//	initramfs/<digest>.cpio
//	initramfs/<digest>.disk  a boot disk with an initramfs, see package bootdisk
//	default                the id of the default kernel
//	download/<package>/    a package under way, apt's; a broken-off one can be resumed for a day
//	work/                  emptied at start, not readable by others
//
// Invariants: a kernel's folder appears whole or not at all, and never changes but
// for the name in its record. Every kernel kept can serve guests: one that lacks
// a module of Guest.Required is refused when it is added. Whatever is read of a
// package, a template or a file is hostile: its paths are matched and never
// followed, names are checked, sizes are bounded.
//
// Locks: Store.mu guards the table and the records' files; it is held for no
// download and no unpacking. An initramfs is made under a lock of its key, a
// package downloaded under one of its name.
//
// It does not boot anything, does not know which environment uses which kernel
// (callers say), and installs nothing on the host.
package kernel
