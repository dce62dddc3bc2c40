// Package image reads kernels as distributions ship them, and writes them as a
// virtual machine boots them quickest: an uncompressed ELF file that is entered
// by PVH. A bzImage unpacks itself at every boot; here that is done once.
//
// What is read is hostile: every offset is checked, what comes out is bounded by
// MaxKernel, and a decoder's window by MaxWindow.
//
// A bzImage is a boot sector and setup code, whose header says where in the file
// the compressed ELF file is (Linux, Documentation/arch/x86/boot.rst). That may
// be compressed with gzip, xz, zstd, lz4, lzma or bzip2, or be as it is.
package image

import "github.com/strata-project/strata/internal/unit"

// MaxKernel bounds an unpacked kernel. Unit: bytes. Debian's have 50 to 70 MiB;
// some with debug information that are not stripped have several hundred.
const MaxKernel = 768 * unit.MiB

// MaxPacked bounds a kernel as it is shipped. Unit: bytes.
const MaxPacked = MaxKernel

// MaxWindow bounds a decoder's window. Unit: bytes. Linux packs with 32 MiB
// (xz, lib/xz) or 128 MiB (zstd -22 --ultra).
const MaxWindow = 128 * unit.MiB

// Info is what a kernel says about itself.
type Info struct {
	Release string // as uname -r says it; "" where it was not found
	Arch    string // Go's word
	Format  string // of what was read: bzImage or ELF
}

// The formats.
const (
	BzImage = "bzImage"
	ELF     = "ELF"
)
