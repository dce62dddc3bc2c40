package mount

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/thread"
)

// Merged shows EROFS images, the base first, as the one read-only tree that an
// overlay makes of them, with the owners that they have. Only do sees it, at the
// path it is given, and processes that do starts: it runs on a thread in a mount
// namespace that ends with it. Goroutines that do starts do not see it. dir is an
// empty folder of the caller's; what is left in it are empty folders.
// Kinds: Invalid (no images, too many), Missing, Unable, and do's own.
func Merged(ctx context.Context, images []string, dir string, do func(root string) error) error {
	if len(images) == 0 || len(images) > MaxLowers {
		return fault.Invalidf("a tree of %d layers is not possible", len(images)).Help("use 1 to %d layers", MaxLowers)
	}
	if !filepath.IsAbs(dir) {
		return fault.Internalf("%s is not an absolute path", dir)
	}
	return thread.Spare(func() error {
		if err := enterOwn(dir); err != nil {
			return err
		}
		if err := mergeHere(ctx, images); err != nil {
			return err
		}
		return do(filepath.Join(dir, mergedName))
	})
}

// mergedName is the folder that the merged tree is at.
const mergedName = "root"

// enterOwn puts the calling thread into a private mount namespace, with dir as
// its working folder.
func enterOwn(dir string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mount namespace private: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	return nil
}

// mergeHere mounts images below the working folder. Names there are short, so
// that MaxLowers of them fit the page of options that mount(2) takes.
func mergeHere(ctx context.Context, images []string) error {
	lowers := make([]string, len(images))
	for i, image := range images {
		if err := ctx.Err(); err != nil {
			return err
		}
		name := strconv.Itoa(i)
		if len(images) == 1 { // the kernel wants two; one is its own overlay
			name = mergedName
		}
		tree, err := mountImage(image)
		if err != nil {
			return fault.Wrap(err, "mount layer %d", i)
		}
		err = unix.Mkdir(name, 0o700)
		if err == nil {
			err = tree.Attach(name)
		}
		tree.Close()
		if err != nil {
			return fmt.Errorf("place layer %d: %w", i, err)
		}
		lowers[len(lowers)-1-i] = name
	}
	if len(images) == 1 {
		return nil
	}
	if err := unix.Mkdir(mergedName, 0o700); err != nil {
		return fmt.Errorf("make the merged tree's folder: %w", err)
	}
	data := "lowerdir=" + strings.Join(lowers, ":")
	for _, o := range (OverlaySpec{}).options() {
		data += "," + o.Key + "=" + o.Value
	}
	if err := unix.Mount("strata", mergedName, "overlay", unix.MS_RDONLY|unix.MS_NODEV, data); err != nil {
		return fmt.Errorf("mount overlay of %d layers: %w", len(images), os.NewSyscallError("mount", err))
	}
	return nil
}
