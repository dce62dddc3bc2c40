// Package bootdisk makes the small disk from which stock firmware boots one of
// strata's kernels with its initramfs and command line, without a menu and
// without a wait: a BIOS from its first sector, UEFI from \EFI\BOOT\BOOTX64.EFI.
//
// Words: the span is the kernel as it stands in memory, from its lowest physical
// address to the end of its .bss. A row says where a piece of the span comes from:
// sectors of the disk, or zeros. The manifest is what both loaders need to know,
// and the parameters are the page that Linux is entered with ("zero page").
//
// The disk, in sectors of 512 bytes:
//
//	0            protective MBR, with the code that a BIOS runs (code/mbr.S)
//	1-33         GPT and its table
//	34-57        the loader for a BIOS (code/bios.S), parameters, manifest: a BIOS boot partition
//	2048-        an EFI system partition, FAT32: the loader for UEFI (code/efi.S) with
//	             its parameters and manifest, STRATA\KERNEL.BIN (the rows' sectors),
//	             STRATA\INITRD.IMG, STRATA\CMDLINE.TXT
//	the last 33  GPT again
//
// Both loaders read the same sectors by number and know nothing of FAT: that is
// for the firmware, and for people. The kernel is the uncompressed ELF file and is
// entered at its 64-bit entry point, so nothing is unpacked inside: a bzImage is
// unpacked by package image, once, on the host. The price is that its virtual
// address is not randomized, as where QEMU enters it by PVH.
//
// The machine code is assembled from code/*.S and is checked in beside it; a test
// assembles it anew where there is an assembler, and `go test -update` writes it.
// The constants that both sides use stand in layout.go.
//
// Invariants: the same parts make the same bytes, so that a disk can be kept by
// the digest of its content. Nothing of it is ever written by what boots from it.
// It needs no root and starts no program.
//
// It does not sign: Secure Boot refuses it. It does not boot other architectures
// than amd64, nor disks with sectors of 4096 bytes, nor from a CD.
package bootdisk
