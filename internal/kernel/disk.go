package kernel

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
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
	key := hex.EncodeToString(sum[:])
	to := filepath.Join(s.dir, initramfsDir, strings.TrimPrefix(k.ID, idPrefix)+"-"+key+bootDiskTail)
	unlock, err := s.making.lock(ctx, to)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	disk := Image{Path: to, Digest: idPrefix + key}
	if info, err := os.Stat(to); err == nil {
		now := time.Now()
		_ = os.Chtimes(to, now, now) // how long it was not used only says what to prune first
		disk.Size = info.Size()
		return disk, nil
	}
	if disk.Size, err = makeBootDisk(ctx, to, k, i, commandLine); err != nil {
		return Image{}, fault.Wrap(room(err), "make the boot disk of kernel %s", k.Name)
	}
	s.tidy()
	return disk, nil
}

func makeBootDisk(ctx context.Context, to string, k Kernel, i Image, commandLine string) (int64, error) {
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
	f, err := os.CreateTemp(filepath.Dir(to), temporary)
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	size, err := bootdisk.Make(ctx, w, bootdisk.Parts{
		Kernel: vmlinux, Initramfs: initramfs, InitramfsSize: i.Size, CommandLine: commandLine,
	})
	if err != nil {
		return 0, err
	}
	if err := errors.Join(w.Flush(), f.Chmod(0o644), f.Sync()); err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), to); err != nil {
		return 0, err
	}
	return size, syncPath(filepath.Dir(to))
}
