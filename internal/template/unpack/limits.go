package unpack

import "github.com/strata-project/strata/internal/unit"

// Limits bound one layer.
type Limits struct {
	Entries int   // headers in the tar
	Bytes   int64 // of all files, unpacked, holes counted
	Folders int64 // total length of the names of folders, which are held in memory
	Steps   int64 // how often a path leads into a folder; through links that is the square of its depth
	Whole   bool  // it is no layer but a whole tree: what says in a layer that something is gone is refused
}

// Defaults are the limits of a layer from elsewhere. The largest public images
// known have some 500,000 entries and 30 GiB. All the steps take a minute or two.
var Defaults = Limits{
	Entries: 2_000_000,
	Bytes:   64 * unit.GiB,
	Folders: 64 * unit.MiB,
	Steps:   256 * 2_000_000,
}

// Bounds that no caller changes.
const (
	// MaxPath is the longest path of an entry, links resolved. Unit: bytes.
	// linux/limits.h has PATH_MAX 4096 with the closing zero; the rest is for the
	// folder that mkfs.erofs puts before each path.
	MaxPath = 3500
	// MaxName is the longest component. Unit: bytes. linux/limits.h has NAME_MAX 255, of which
	// mkfs.erofs (seen with 1.5) loses the last and then finds no such file.
	MaxName = 254
	// MaxTarget is the longest target of a symbolic link. Unit: bytes.
	// Source: linux/limits.h, PATH_MAX less the closing zero.
	MaxTarget = 4095
	// MaxID is the largest user or group id: an environment has 65,536 of them.
	MaxID = 65535
	// MaxAttributes is how many extended attributes one entry may have.
	MaxAttributes = 64
	// MaxAttribute is the longest value of one. Unit: bytes.
	// Source: linux/limits.h, XATTR_SIZE_MAX.
	MaxAttribute = 64 * unit.KiB
	// maxLinks is how many symbolic links one path may lead through.
	// Source: linux/namei.h, MAXSYMLINKS.
	maxLinks = 40
	// maxTime is the last moment that an ext4 inode holds. Unit: seconds since 1970.
	// Source: Documentation/filesystems/ext4/inodes.rst (34 bits).
	maxTime = 1<<34 - 1
	// Spare is the space that must stay free on the host's disk. Unit: bytes.
	Spare = 256 * unit.MiB
	// SpareEvery is after how many written bytes that is looked at again.
	SpareEvery = 64 * unit.MiB
)
