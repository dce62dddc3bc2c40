package volume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/qemu/virtiofs/serve"
	"github.com/strata-project/strata/internal/qemu/virtiofs/vhost"
	"github.com/strata-project/strata/internal/seccomp"
)

// seen is how long the machine takes what it was told of a name or of a file for true, as it
// does of virtiofsd (cache=auto).
const seen = time.Second

// maxTransfer bounds what is read or written at once.
const maxTransfer = 1 << 20

// queues are the device's: one for what is urgent, and one for the rest.
const queues = 2

// kept are the capabilities that stay, for the owners and modes of files.
const kept = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID |
	1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETFCAP

// making are those that something is made with: who is not in a group does not get its bit.
const making = kept &^ (1 << unix.CAP_FSETID)

// Run is the whole of the program, whose one argument is the number of the listening socket that
// QEMU is connected to; it returns the exit status.
func Run(args []string) int {
	err := errors.New("it is run by strata only")
	if len(args) == 2 {
		var listener int
		if listener, err = strconv.Atoi(args[1]); err == nil {
			err = run(listener)
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", serve.Own, err)
		return 1
	}
	return 0
}

func run(listener int) error {
	runtime.GOMAXPROCS(1) // threads that look for work take their time from the machine's processors
	conn, err := accept(listener)
	if err != nil {
		return err
	}
	if err := enter(serve.Place); err != nil {
		return err
	}
	log.SetOutput(io.Discard) // a machine can have go-fuse say as much as it likes
	v, err := newVolume()
	if err != nil {
		return err
	}
	return vhost.Serve(conn, queues, v.answer)
}

// accept takes the one connection that waits, QEMU's.
func accept(listener int) (*net.UnixConn, error) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("accept QEMU's connection: %w", err)
	}
	unix.Close(listener)
	f := os.NewFile(uintptr(fd), "QEMU")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("QEMU is connected by no unix socket")
	}
	return c, nil
}

// enter makes the volume the root of this process, and gives up what it took.
func enter(folder string) error {
	if err := errors.Join(unix.Chroot(folder), unix.Chdir("/")); err != nil {
		return fmt.Errorf("enter the volume: %w", err)
	}
	unix.Umask(0) // the machine has applied its program's already
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	data[0].Permitted &= kept
	data[0].Effective, data[0].Inheritable = data[0].Permitted, 0
	data[1] = unix.CapUserData{}
	threads = capabilities{head, data}
	if err := threads.set(allThreads, kept); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	filter, err := seccomp.Tool()
	if err != nil {
		return err
	}
	return filter.Load(unix.SECCOMP_FILTER_FLAG_TSYNC)
}

// volume answers FUSE for the folder that is this process's root.
type volume struct {
	root  unix.Stat_t
	files *files
	// What the machine has been told of: it begins anew where the machine mounts the volume anew.
	server atomic.Pointer[fuse.ProtocolServer]
}

func newVolume() (*volume, error) {
	v := &volume{files: &files{all: map[fs.FileHandle]bool{}}}
	if err := unix.Stat("/", &v.root); err != nil {
		return nil, err
	}
	v.begin()
	return v, nil
}

// begin forgets whatever the machine has been told of.
func (v *volume) begin() {
	tree := &fs.LoopbackRoot{Path: "/", Dev: v.root.Dev}
	//lint:ignore SA1019 what is to come after it makes a node only to wrap it in another
	tree.NewNode = func(tree *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &node{LoopbackNode: fs.LoopbackNode{RootData: tree}, files: v.files}
	}
	//lint:ignore SA1019 as above
	tree.RootNode = tree.NewNode(tree, nil, "", nil)
	while := seen
	options := &fs.Options{
		EntryTimeout: &while, AttrTimeout: &while,
		NullPermissions: true, // a file of mode 0 is one
		RootStableAttr:  &fs.StableAttr{Ino: v.root.Ino, Mode: unix.S_IFDIR},
		Logger:          log.New(io.Discard, "", 0),
	}
	options.MountOptions = fuse.MountOptions{
		EnableAcl: true, MaxWrite: maxTransfer, DisableSplice: true, Logger: options.Logger,
		PanicHandler: func(why any) fuse.Status { // what it has locked would stay so
			fmt.Fprintf(os.Stderr, "%s: %.200v\n", serve.Own, why)
			os.Exit(1)
			return fuse.EIO
		},
	}
	v.server.Store(fuse.NewProtocolServer(guard{fs.NewNodeFS(tree.RootNode, options)}, &options.MountOptions))
	v.files.close()
}

// initOpcode begins a mount. Source: linux/fuse.h, FUSE_INIT.
const initOpcode = 26

// answer is vhost.Handle.
func (v *volume) answer(read, write [][]byte) int {
	if len(read) > 0 && len(read[0]) >= 8 && binary.LittleEndian.Uint32(read[0][4:]) == initOpcode {
		v.begin()
	}
	n, _ := v.server.Load().HandleRequest(read, write)
	return n
}

// capabilities are what each thread has, which the kernel takes from one that acts as
// another user.
type capabilities struct {
	head unix.CapUserHeader
	data [2]unix.CapUserData
}

var threads capabilities

type call func(trap, a1, a2, a3 uintptr) (r1, r2 uintptr, err unix.Errno)

func allThreads(trap, a1, a2, a3 uintptr) (r1, r2 uintptr, err unix.Errno) {
	return syscall.AllThreadsSyscall(trap, a1, a2, a3)
}

// set has this thread, or all, use those of them.
func (c *capabilities) set(by call, those uint32) error {
	head, data := c.head, c.data // the kernel writes to the former
	data[0].Effective &= those
	if _, _, errno := by(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0])), 0); errno != 0 {
		return errno
	}
	return nil
}
