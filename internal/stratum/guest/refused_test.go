package guest_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/place"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/guest"
	"github.com/strata-project/strata/internal/stratum/virtual/virtualtest"
	"github.com/strata-project/strata/internal/unit"
)

// refused starts p, which must not work, and compares the fault.
func (r *root) refused(t *testing.T, d stratum.Driver, p stratum.Plan, want fault.Error) {
	t.Helper()
	before := r.host(t)
	_, err := d.Start(t.Context(), p, stratum.StartOptions{})
	if err == nil {
		t.Fatal("it was started")
	}
	got := fault.All(err)[0]
	if got.Kind != want.Kind || got.Field != want.Field || !strings.Contains(got.Message, want.Message) || !strings.Contains(got.Hint, want.Hint) {
		t.Errorf("the fault is %s at %q: %s (%s)", got.Kind, got.Field, got.Message, got.Hint)
	}
	r.left(t, before)
}

func TestWithoutQEMUItsPackageIsNamed(t *testing.T) {
	r := newRoot(t)
	p := r.sleeping(t)
	t.Setenv("PATH", "")
	r.refused(t, r.driver, p, fault.Error{Kind: fault.Unable, Message: "guests need qemu-system-x86_64, which is not installed", Hint: "apt install qemu-system-x86"})
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for said, want := range map[string]fault.Error{
		"echo QEMU emulator version 5.2.0": {Kind: fault.Unable, Message: "is QEMU 5.2.0; guests need 6.2 or newer", Hint: "install qemu-system-x86 from a newer release"},
		"echo something else":              {Kind: fault.Unable, Message: "does not look like QEMU"},
		"exit 1":                           {Kind: fault.Unable, Message: "does not say its version", Hint: "apt install --reinstall qemu-system-x86"},
		"[ $1 = -M ] && echo pc || echo QEMU emulator version 9.0.0": {Kind: fault.Unable, Message: `knows no machine "microvm"`, Hint: "install qemu-system-x86"},
	} {
		if err := os.WriteFile(filepath.Join(dir, qemuName), []byte("#!/bin/sh\n"+said+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		r.refused(t, r.driver, p, want)
	}
}

func TestAGuestHasRoomForEighteenVolumes(t *testing.T) {
	dir := t.TempDir()
	d, err := guest.New(guest.Options{Places: place.Places{Run: dir, State: dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.MayShow(18); err != nil {
		t.Error(err)
	}
	if err := d.MayShow(19); !fault.Is(err, fault.Invalid) || fault.All(err)[0].Field != "volumes" {
		t.Error(err)
	}
}

func TestMemoryBelowTheFloorIsRefused(t *testing.T) {
	r := newRoot(t)
	p := r.sleeping(t)
	p.Resources.Memory = 5 * unit.MiB
	r.refused(t, r.driver, p, fault.Error{Kind: fault.Invalid, Field: "resources.memory", Message: "5M of memory are fewer than", Hint: "give at least 6M"})
}

// An agent of many MiB makes the initramfs as large.
func TestAnInitramfsThatDoesNotFitIsRefused(t *testing.T) {
	r := newRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"strata-keeper", "strata-agent", "strata-vmagent", "strata-volume"} {
		from, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "strata-vmagent"), 60<<20); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	p := r.sleeping(t)
	p.Resources.Memory = 32 * unit.MiB
	r.refused(t, r.newDriver(t), p, fault.Error{Kind: fault.Unable, Field: "resources.memory", Message: "does not fit into 128M of memory", Hint: "give the environment more memory"})
}

func TestAKernelWithoutVirtioIsRefused(t *testing.T) {
	r := newRoot(t)
	files := exec.Command(require.Tool(t, "dpkg-deb"), "--fsys-tarfile", virtualtest.KernelPackage(t, kernelName))
	out, err := files.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Start(); err != nil {
		t.Fatal(err)
	}
	read, write := io.Pipe()
	go func() {
		write.CloseWithError(leaveOut(tar.NewWriter(write), tar.NewReader(out), "virtio_blk.ko"))
		io.Copy(io.Discard, out)
		files.Wait()
	}()
	_, err = r.Kernels.Import(t.Context(), read, kernel.ImportOptions{Source: "test", Name: "without"}, nil)
	if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "has no virtio_blk, neither as a module nor built in") || !strings.Contains(fault.All(err)[0].Hint, "strata kernel add debian") {
		t.Errorf("the fault is %v", err)
	}
	p := r.sleeping(t)
	p.Kernel = "without"
	r.refused(t, r.driver, p, fault.Error{Kind: fault.Missing, Field: "kernel", Message: `there is no kernel "without"`, Hint: "strata kernel ls"})
}

// leaveOut copies an archive but for the files of a name.
func leaveOut(to *tar.Writer, from *tar.Reader, name string) error {
	for {
		head, err := from.Next()
		if errors.Is(err, io.EOF) {
			return to.Close()
		}
		if err != nil {
			return err
		}
		if strings.HasPrefix(filepath.Base(head.Name), name) {
			continue
		}
		if err := to.WriteHeader(head); err != nil {
			return err
		}
		if _, err := io.Copy(to, from); err != nil {
			return err
		}
	}
}
