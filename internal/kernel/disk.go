package kernel

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"

	"github.com/strata-project/strata/internal/kernel/bootdisk"
)

// bootDiskRecipe changes with what bootdisk.Make makes of the same parts.
const bootDiskRecipe = "1"

// bootDiskTail is the end of a boot disk's file name, which is like an initramfs'.
const bootDiskTail = ".disk"

// BootDisk returns a raw disk from which a BIOS and UEFI boot k with the initramfs i
// and a command line. Like an initramfs it is made where it is missing, by one of
// several callers, and only ever read. Kinds: bootdisk.Make's, Busy where the disk is full.
func (s *Store) BootDisk(ctx context.Context, k Kernel, i Image, commandLine string) (Image, error) {
	input, err := json.Marshal([]string{bootDiskRecipe, k.ID, i.Digest, commandLine})
	if err != nil {
		return Image{}, err
	}
	sum := sha256.Sum256(input)
	return s.once(ctx, k, product{"boot disk", bootDiskTail, hex.EncodeToString(sum[:])}, func(f *os.File) (int64, error) {
		return writeBootDisk(ctx, f, k, i, commandLine)
	})
}

func writeBootDisk(ctx context.Context, f *os.File, k Kernel, i Image, commandLine string) (int64, error) {
	vmlinux, err := os.Open(k.Vmlinux())
	if err != nil {
		return 0, err
	}
	defer vmlinux.Close()
	initramfs, err := os.Open(i.Path)
	if err != nil {
		return 0, err
	}
	defer initramfs.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	size, err := bootdisk.Make(ctx, w, bootdisk.Parts{
		Kernel: vmlinux, Initramfs: initramfs, InitramfsSize: i.Size, CommandLine: commandLine,
	})
	if err != nil {
		return 0, err
	}
	return size, w.Flush()
}
