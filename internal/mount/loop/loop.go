// Package loop attaches image files to loop devices.
//
// A device is attached with AUTOCLEAR: when its last user closes it (a mount is
// a user), the kernel detaches it, so that nothing is left behind by a process
// that is killed. It imports nothing of strata but fault.
package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Options say how an image is attached. The zero value is writable, through the
// page cache, with 512-byte blocks.
type Options struct {
	ReadOnly  bool
	Direct    bool   // past the host's page cache, where its file system can
	BlockSize uint32 // bytes; 0: the kernel's choice
	ReadAhead int    // bytes; 0: the kernel's choice
}

// Device is an attached loop device, held open.
type Device struct {
	Path string // such as /dev/loop3
	file *os.File
}

// Close lets go of the device; it is detached if nobody else has it open.
func (d *Device) Close() error { return d.file.Close() }

// finding keeps the threads of this process from racing for the same device.
var finding sync.Mutex

// tries bounds the race for a free device with other processes.
const tries = 64

// Attach attaches the open file image to a free device. The device holds the
// open file description of image, with any lock on it, until it is detached.
// Kinds: Unable (no loop devices here), Busy (none is free).
func Attach(image *os.File, o Options) (*Device, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fault.Unablef("this host has no loop devices: %w", err).Help("load the module loop")
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(image.Fd()), Size: o.BlockSize}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	if o.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if o.Direct {
		config.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], image.Name())
	finding.Lock()
	defer finding.Unlock()
	for range tries {
		number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fault.Busyf("no loop device is free: %w", err)
		}
		dev, err := configure(number, &config)
		if errors.Is(err, unix.EBUSY) {
			continue // another process was quicker
		}
		if err != nil {
			return nil, fmt.Errorf("attach %s to a loop device: %w", image.Name(), err)
		}
		if o.ReadAhead > 0 {
			// Unit of the call: 512-byte sectors. Tolerated: a matter of speed only.
			_ = unix.IoctlSetInt(int(dev.file.Fd()), unix.BLKRASET, o.ReadAhead/512)
		}
		return dev, nil
	}
	return nil, fault.Busyf("no loop device could be had in %d tries", tries)
}

func configure(number int, config *unix.LoopConfig) (*Device, error) {
	path := "/dev/loop" + strconv.Itoa(number)
	mode := os.O_RDWR
	if config.Info.Flags&unix.LO_FLAGS_READ_ONLY != 0 {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(path, mode|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlLoopConfigure(int(file.Fd()), config); err != nil {
		file.Close()
		return nil, err
	}
	return &Device{Path: path, file: file}, nil
}

// Attached is a device that has an image.
type Attached struct {
	Path  string // of the device
	Image string // of the image, as it is named now
	Gone  bool   // the image has been removed, but for this device
}

// List returns the devices of this host that have an image.
func List() ([]Attached, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, err
	}
	var all []Attached
	for _, name := range names {
		path := "/dev/" + filepath.Base(filepath.Dir(name))
		image, gone, err := Image(path)
		if err != nil {
			continue // detached meanwhile
		}
		all = append(all, Attached{Path: path, Image: image, Gone: gone})
	}
	return all, nil
}

// Image returns what is attached to the device at path, under the name that it
// has now; gone tells that the name has been removed.
func Image(path string) (image string, gone bool, err error) {
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), "loop/backing_file"))
	if err != nil {
		return "", false, err
	}
	image, gone = strings.CutSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)")
	return image, gone, nil
}
