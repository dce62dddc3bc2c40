package machine

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel/loop"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/require"
)

// patience bounds everything that a test waits for.
var patience = require.Patience(2 * time.Minute)

// TestMain makes this program the stage that becomes QEMU as well, and the one that tries KVM.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == loop.Command {
		os.Exit(loop.Run())
	}
	if len(os.Args) > 1 && os.Args[1] == confine.Command {
		os.Exit(confine.Run(os.Args))
	}
	os.Exit(m.Run())
}

// sector is a disk whose boot sector writes a letter to the first serial port, waits
// for anything to come from there, and resets the machine by the keyboard's
// controller.
func sector(letter byte) []byte {
	return booting([]byte{
		0xba, 0xf8, 0x03, 0xb0, letter, 0xee, // to 0x3f8
		0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb, // until bit 0 of 0x3fd is set
		0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd,
	})
}

// booting is a disk that begins with a program for the processor's first mode.
func booting(program []byte) []byte {
	disk := make([]byte, 1<<20) // the firmware wants a whole cylinder
	copy(disk, program)
	disk[510], disk[511] = 0x55, 0xaa
	return disk
}

// rig is a QEMU that runs.
type rig struct {
	t       *testing.T
	console net.Conn
	qmp     *qemu.QMP
	said    func() string // by QEMU
}

// options are what differs between tests.
type options struct {
	stopped bool
	user    uint32 // other than 0: QEMU and swtpm are confined, as this user
	disk0   func(hand func(*os.File) int) []argv.Image
}

// start runs s. Drives but CDs begin with a sector of their own letter: a, b, ...
func start(t *testing.T, s Spec, o options) *rig {
	t.Helper()
	program := require.Tool(t, "qemu-system-x86_64")
	require.Machines(t)
	dir := t.TempDir()
	var files []*os.File
	hand := func(f *os.File, err error) int {
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		t.Cleanup(func() { f.Close() })
		return 2 + len(files)
	}
	ours := map[*int]net.Conn{}
	pair := func(number *int) net.Conn {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		*number = hand(os.NewFile(uintptr(fds[1]), "qemu"), nil)
		f := os.NewFile(uintptr(fds[0]), "ours")
		defer f.Close()
		ours[number], err = net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ours[number].Close() })
		return ours[number]
	}
	f := Files{Drives: map[string][]argv.Image{}, StartStopped: o.stopped, Now: time.Now()}
	for _, listening := range []*int{&f.Monitor, &f.Control, &f.Guest} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, fmt.Sprint(len(files))), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		*listening = hand(l.File())
		l.Close()
	}
	console, events := pair(&f.Console), pair(&f.Events)
	pair(&f.Streams)
	for i, d := range s.Drives {
		if d.Medium == CD {
			continue
		}
		if d.ID == "disk0" && o.disk0 != nil {
			f.Drives[d.ID] = o.disk0(func(f *os.File) int { return hand(f, nil) })
			continue
		}
		image := sector(byte('a' + i))
		name, mode := filepath.Join(dir, d.ID), os.O_RDWR
		if d.Medium == Floppy {
			image = append(image, make([]byte, 1440<<10-len(image))...)
		}
		if d.ReadOnly {
			mode = os.O_RDONLY
		}
		if err := os.WriteFile(name, image, 0o600); err != nil {
			t.Fatal(err)
		}
		f.Drives[d.ID] = []argv.Image{{Format: "raw", FD: hand(os.OpenFile(name, mode, 0))}}
	}
	if s.uefi() {
		found, err := FindFirmware(s.Firmware, FirmwareFolders())
		require.Host(t, "ovmf", err == nil, fmt.Sprint(err))
		if err := found.NewVars(filepath.Join(dir, "vars")); err != nil {
			t.Fatal(err)
		}
		f.Code = argv.Image{Format: found.CodeFormat, FD: hand(os.Open(found.Code))}
		f.Vars = argv.Image{Format: found.VarsFormat, FD: hand(os.OpenFile(filepath.Join(dir, "vars"), os.O_RDWR, 0))}
	}
	if s.TPM {
		swtpm(t, pair(&f.TPM), o.user)
	}
	args := s.Args(f)
	cmd := exec.Command(program, args...)
	if o.user != 0 {
		cmd = exec.Command("/proc/self/exe")
		cmd.Args = confine.Spec{Program: program, Args: args, User: o.user, First: 3, Last: 2 + len(files)}.Encode()
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Namespaces}
	}
	said := new(words)
	cmd.ExtraFiles, cmd.Stderr = files, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for _, f := range files { // QEMU's end is seen by us only where we have none of its sockets
		f.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	q, err := qemu.Open(ctx, events.(*net.UnixConn))
	if err != nil {
		t.Fatalf("%v: QEMU says %s", err, said)
	}
	t.Cleanup(func() { q.Close() })
	return &rig{t, console, q, said.String}
}

// swtpm runs a TPM at the other end of control, as the keeper would.
func swtpm(t *testing.T, control net.Conn, user uint32) {
	t.Helper()
	tpm, err := FindTPM(t.Context())
	require.Host(t, "swtpm", err == nil, fmt.Sprint(err))
	f, err := control.(*net.UnixConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	control.Close()
	state := t.TempDir()
	folder, err := os.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cmd := exec.Command(tpm.Path, tpm.Args(3, state)...)
	if user != 0 {
		if err := os.Chown(state, int(user), int(user)); err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command("/proc/self/exe")
		cmd.Args = confine.Spec{Program: tpm.Path, Args: tpm.Args(3, confine.FilesPlace+"/4"), User: user, First: 3, Last: 4, Files: true}.Encode()
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: confine.Namespaces}
	}
	cmd.ExtraFiles, cmd.Stderr = []*os.File{f, folder}, t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if left, err := os.ReadDir(state); err != nil || len(left) == 0 {
			t.Errorf("the TPM keeps nothing: %v", err)
		}
	})
}

// words are what somebody says, for a reader at any time.
type words struct {
	mu sync.Mutex
	b  strings.Builder
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// hears waits until the first serial port has said want, and nothing else.
func (r *rig) hears(want string) {
	r.t.Helper()
	r.console.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	n, err := r.console.Read(got[:1])
	for n < len(want) && err == nil {
		var more int
		more, err = r.console.Read(got[n:])
		n += more
	}
	if string(got[:n]) != want {
		r.t.Fatalf("it says %q, %v; want %q; QEMU says %s", got[:n], err, want, r.said())
	}
}

func (r *rig) execute(command string, args, result any) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := r.qmp.Execute(ctx, command, args, result); err != nil {
		r.t.Fatalf("%s: %v", command, err)
	}
}

// quiet fails where QEMU complained of anything.
func (r *rig) quiet() {
	r.t.Helper()
	for line := range strings.Lines(r.said()) {
		// A card without a cable, and a host with fewer processors.
		if !strings.Contains(line, "is not connected to host network") && !strings.Contains(line, "exceeds the recommended cpus supported by KVM") {
			r.t.Errorf("QEMU says %s", line)
		}
	}
}
