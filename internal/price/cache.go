package price

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Cached is how many bytes of files, and of regular files in folders, are in the host's page
// cache; a file of many names counts once. Looking reads no content. Kinds: Unable (Linux before
// 6.5, no such file).
func Cached(paths ...string) (int64, error) {
	var all int64
	seen := map[inode]bool{}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			n, of, err := cachedOf(file)
			if !seen[of] {
				all, seen[of] = all+n, true
			}
			return err
		})
		if err != nil {
			return 0, fault.Unablef("the page cache of %s cannot be read: %w", path, err)
		}
	}
	return all, nil
}

// inode is what a file is, whatever its names are.
type inode struct{ device, number uint64 }

// cachedOf asks the kernel of one file. Source: cachestat(2); a length of 0 is the whole file.
func cachedOf(path string) (bytes int64, of inode, err error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, of, err
	}
	defer unix.Close(fd)
	var is unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil {
		return 0, of, os.NewSyscallError("fstat", err)
	}
	var pages unix.Cachestat_t
	if err := unix.Cachestat(uint(fd), &unix.CachestatRange{}, &pages, 0); err != nil {
		return 0, of, os.NewSyscallError("cachestat", err)
	}
	return int64(pages.Cache) * int64(os.Getpagesize()), inode{is.Dev, is.Ino}, nil
}
