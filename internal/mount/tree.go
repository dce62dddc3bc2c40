package mount

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// Tree is a mount held by a file descriptor and attached nowhere. When the last
// descriptor is closed before anybody has attached it, the kernel unmounts it.
// It is safe for concurrent use.
type Tree struct {
	mu   sync.Mutex
	file *os.File
}

// NewTree takes ownership of fd, the descriptor of a mount; name is for messages.
func NewTree(fd int, name string) *Tree { return &Tree{file: os.NewFile(uintptr(fd), name)} }

// File returns the tree's descriptor, to be handed to a process that attaches
// it with move_mount. The tree keeps owning it: it is good until Close.
func (t *Tree) File() *os.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.file
}

func (t *Tree) fd() (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return -1, fault.Internalf("the tree is closed already")
	}
	return int(t.file.Fd()), nil
}

// Close drops the descriptor. Closing twice, or a nil tree, is not an error.
func (t *Tree) Close() error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

// replace makes t the tree that other is, and drops what it was.
func (t *Tree) replace(other *Tree) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		t.file.Close() // of a descriptor that nothing was written to: it cannot fail in a way that matters
	}
	t.file, other.file = other.file, nil
}

// Attach puts the tree at target in the mount namespace of the calling thread.
func (t *Tree) Attach(target string) error {
	fd, err := t.fd()
	if err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach a mount at %s: %w", target, err)
	}
	return nil
}

// setattr changes the tree's mount, and those below it where recursive is set.
func (t *Tree) setattr(attr unix.MountAttr, recursive bool) error {
	fd, err := t.fd()
	if err != nil {
		return err
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &attr)
}

// cloneOf returns a private clone of the mount at fd (or of the folder that fd is of).
func cloneOf(fd int, name string, recursive bool) (*Tree, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	clone, err := unix.OpenTree(fd, "", flags)
	if err != nil {
		return nil, fmt.Errorf("clone the mount of %s: %w", name, err)
	}
	return NewTree(clone, name), nil
}

// FileSystem describes a mount of a file system that is to be made.
type FileSystem struct {
	Type     string   // as in /proc/filesystems
	Source   string   // device, file or a mere name
	Options  []Option // in the order they are set
	ReadOnly bool     // of the file system itself, and so of all its mounts
	Attr     int      // unix.MOUNT_ATTR_* of this mount
}

// Option is one option of a file system: a flag where Value is "" and Of is
// nil, a folder or file where Of is set.
type Option struct {
	Key, Value string
	Of         *os.File
}

// Mount makes the mount, attached nowhere. The kernel's own words are in the error.
func (f FileSystem) Mount() (*Tree, error) {
	fail := func(fs int, step string, err error) error {
		if words := kernelWords(fs); words != "" {
			return fmt.Errorf("mount %s of %s: %s: %w (%s)", f.Type, f.Source, step, err, words)
		}
		return fmt.Errorf("mount %s of %s: %s: %w", f.Type, f.Source, step, err)
	}
	fs, err := unix.Fsopen(f.Type, unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil, fault.Unablef("this kernel has no %s: %w", f.Type, err).Help("load the module %s, or use a kernel that has it", f.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("mount %s: open: %w", f.Type, err)
	}
	defer unix.Close(fs)
	if f.Source != "" {
		if err := unix.FsconfigSetString(fs, "source", f.Source); err != nil {
			return nil, fail(fs, "source", err)
		}
	}
	if f.ReadOnly {
		f.Attr |= unix.MOUNT_ATTR_RDONLY
		if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
			return nil, fail(fs, "ro", err)
		}
	}
	for _, o := range f.Options {
		switch {
		case o.Of != nil:
			err = unix.FsconfigSetFd(fs, o.Key, int(o.Of.Fd()))
		case o.Value == "":
			err = unix.FsconfigSetFlag(fs, o.Key)
		default:
			err = unix.FsconfigSetString(fs, o.Key, o.Value)
		}
		if err != nil {
			return nil, fail(fs, "option "+o.Key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, fail(fs, "create", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, f.Attr)
	if err != nil {
		return nil, fail(fs, "mount", err)
	}
	return NewTree(fd, f.Source), nil
}

// kernelWords reads what the kernel has to say about a failed mount.
func kernelWords(fs int) string {
	var words []string
	buf := make([]byte, 1024)
	for range 8 { // the kernel keeps at most 8 messages: include/linux/fs_context.h, struct fc_log
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		text := strings.TrimSpace(string(buf[:n]))
		if len(text) > 2 && text[1] == ' ' { // "e ", "w " or "i " before the text
			text = text[2:]
		}
		words = append(words, text)
	}
	return strings.Join(words, "; ")
}
