// Package machine writes down a virtual machine with stock hardware: what it has
// (Spec), whether that can be (Validate), what people are told of it (Describe), and
// QEMU's command line of it (Args). It is pure, but for what looks for programs and
// firmware of the host (FindFirmware, FindTPM).
//
// # Words
//
//	board    q35 (PCI Express, AHCI) or pc (PCI, IDE; what there was in 1996)
//	drive    something that holds or takes an image: a disk, a CD drive, a floppy drive
//	card     a network card
//	place    where a device can be plugged in while the machine runs
//	channel  a line between the agent inside and the host
//	files    QEMU's descriptors for a Spec; a Spec by itself has none, and can be kept
//
// # Invariants
//
//   - QEMU opens nothing by a name that came from a user or an image: disks, firmware
//     and its variables are descriptors, an image's backing files as well, each given
//     explicitly, whatever the image's header says.
//   - Where a device is on its bus follows from its kind and its number among its
//     kind, never from which others there are. So a card or a disk more moves nothing,
//     which systems that bind drivers to places (Windows) and saved states need.
//   - What Validate lets pass, QEMU takes: the tests boot it.
//
// # What it does not do
//
// It starts nothing and opens nothing of a machine's. Whether an image is what it is
// said to be is for package internal/image to say; who reaches the screen, for
// internal/screen.
package machine
