// Package machine runs environments as machines: virtual hardware as a shop sells it,
// on which stock firmware boots.
//
// # Words
//
//	board      q35, with SeaBIOS or OVMF (package qemu/machine)
//	boot disk  the small disk that firmware boots, with kernel and initramfs (package
//	           kernel/bootdisk); one for all machines of a kernel
//	layer      what a machine has written to a disk that it shares, in memory
//
// # A template on stock hardware
//
// The board has three SATA disks: the boot disk, the template's one image, and the
// private disk. The latter two are found by their serial numbers, which are a guest's;
// the private disk is the same file as at every depth. The agent inside is a guest's as
// well, over a virtio-serial device, which with the balloon and volumes (virtiofs) is all
// that is not stock. Where the kernel has no driver for that, or where it is asked for, it
// is reached by two serial ports, and there is no balloon (agentPort). Package virtual does what guests and machines have in common.
//
// SATA has no disks that cannot be written to. So what a machine writes to boot disk or
// template goes into a layer of its own in memory, which counts as QEMU's and is gone at
// the end. Nothing writes there but a system that was taken over.
//
// Other hardware can be asked for by name. The kernel's drivers for it, and for what is
// attached, are chosen by tables (drivers); what can be plugged in while it runs has one
// from the start, or is refused (driven).
//
// # Foreign systems
//
// A system that strata does not know has no template and no agent, but a disk and a CD of
// its own. Its disk is a qcow2 image that lies over the image it was made of, which is
// only read, or a copy of that. It runs as soon as QEMU does, and is ready then: whatever
// happens inside is to be seen on its screen and its serial line. What firmware says that
// finds nothing to boot is looked for (watch).
//
// # What it does not do
//
// There is no warm start.
package machine
