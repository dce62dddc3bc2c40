package machine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

// TestByKVM looks at what differs where the host's processor runs the machine.
func TestByKVM(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	v, _ := accel.Try(t.Context(), self)
	require.Host(t, "kvm", v.Accelerator == qemu.KVM, v.Reason)
	t.Run("boots", func(t *testing.T) { bootsItsDisk(t, qemu.KVM) })
	t.Run("devices", func(t *testing.T) { takesDevices(t, qemu.KVM) })
	t.Run("Windows sees Hyper-V", func(t *testing.T) { named(t, qemu.KVM, Windows, "Microsoft Hv") })
	t.Run("Linux sees KVM", func(t *testing.T) { named(t, qemu.KVM, Linux, "KVMKVMKVM\x00\x00\x00") })
}

func TestASystemSeesItsEmulator(t *testing.T) { named(t, qemu.TCG, Linux, "TCGTCGTCGTCG") }

// named wants what a system asks the processor for when it looks whether it is virtual:
// leaf 0x40000000. Source: Microsoft, Hypervisor Top-Level Functional Specification, "Feature
// and Interface Discovery"; Linux, Documentation/virt/kvm/x86/cpuid.rst.
func named(t *testing.T, accelerator string, system OS, want string) {
	s := made(t, system, Host{Accel: accelerator})
	s.Firmware, s.TPM, s.Memory.Size = BIOS, false, 256*unit.MiB // the disk has no UEFI program
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, booting([]byte{
		0xfc, 0x31, 0xc0, 0x8e, 0xd8, // forwards, from segment 0
		0x66, 0xb8, 0x00, 0x00, 0x00, 0x40, 0x0f, 0xa2, // cpuid
		0x66, 0x89, 0x1e, 0x00, 0x7e, 0x66, 0x89, 0x0e, 0x04, 0x7e, 0x66, 0x89, 0x16, 0x08, 0x7e, // ebx, ecx and edx to 0x7e00
		0xbe, 0x00, 0x7e, 0xb9, 0x0c, 0x00, // 12 bytes
		0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, // until bit 5 of 0x3fd is set
		0xba, 0xf8, 0x03, 0xac, 0xee, 0xe2, 0xf1, // each to 0x3f8
		0xf4, 0xeb, 0xfd,
	}), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, s, options{disk0: func(hand func(*os.File) int) []argv.Image {
		f, err := os.OpenFile(disk, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return []argv.Image{{Format: "raw", FD: hand(f)}}
	}})
	r.hears(want)
	r.quiet()
}
