package qemu_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel/loop"
)

func TestABootedGuestHasWhatItsCommandLineSays(t *testing.T) {
	m := start(t, options{})
	for command, want := range map[string]string{
		"read /sys/block/vda/serial":                      qemu.TemplateSerial,
		"read /sys/block/vda/ro":                          "1",
		"read /sys/block/vdb/serial":                      qemu.DiskSerial,
		"read /sys/block/vdb/ro":                          "0",
		"read /sys/class/net/eth0/address":                "02:00:00:00:00:07",
		"read /sys/class/virtio-ports/vport0p1/name":      qemu.ControlPort,
		"read /sys/class/virtio-ports/vport0p2/name":      qemu.StreamsPort,
		"read /sys/class/misc/hw_random/rng_current":      "virtio_rng.0",
		"list /sys/bus/virtio/drivers/virtio_balloon/vi*": "/sys/bus/virtio/drivers/virtio_balloon/virtio5",
	} {
		if got := m.ask(command); got != want {
			t.Errorf("%s says %q, want %q", command, got, want)
		}
	}
	if line := m.ask("read /proc/cmdline"); !strings.Contains(line, "tsc_early_khz=") {
		t.Errorf("the kernel was not told how fast the counter runs: %s", line)
	}
	// What is written is in the file, and what is discarded takes no room.
	room := func() int64 {
		var st unix.Stat_t
		must(t, unix.Stat(m.disk, &st))
		return st.Blocks * 512
	}
	if got := m.ask("write /dev/vdb"); got != "written" || room() < span {
		t.Errorf("%s: the disk takes %d bytes", got, room())
	}
	data, err := os.ReadFile(m.disk)
	must(t, err)
	if string(data[:span]) != strings.Repeat("x", span) {
		t.Error("what was written is not in the image")
	}
	if got := m.ask("discard /dev/vdb"); got != "discarded" || room() != 0 {
		t.Errorf("%s: the disk still takes %d bytes", got, room())
	}
	if got := m.ask("write /dev/vda"); !strings.HasPrefix(got, "error") {
		t.Error("the template can be written")
	}
	m.tell("off")
	if got := m.told("SHUTDOWN"); !strings.Contains(got, "guest-shutdown") {
		t.Errorf("a guest that switches itself off is told as %s", got)
	}
	m.wait()
}

func TestProcessorsBearAKernelThatChangesItsOwnCode(t *testing.T) {
	m := start(t, options{processors: 2})
	if got := m.ask("patch"); got != "patched" {
		t.Error(got)
	}
}

func TestAPanicIsTold(t *testing.T) {
	m := start(t, options{})
	m.ask("list /")
	m.tell("panic")
	if got := m.told("GUEST_PANICKED"); !strings.Contains(got, "action") {
		t.Errorf("it says %s", got)
	}
	m.wait()
	if !strings.Contains(m.console.String(), "Kernel panic") {
		t.Error("the panic is not on the console")
	}
}

func TestTheDaemonsMonitor(t *testing.T) {
	m := start(t, options{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m.ask("list /")
	for range 2 { // one daemon after another
		q := m.monitor(ctx)
		var status struct{ Status string }
		must(t, q.Execute(ctx, "stop", nil, nil), q.Execute(ctx, "query-status", nil, &status))
		if status.Status != "paused" {
			t.Errorf("stopped, it is %q", status.Status)
		}
		must(t, q.Execute(ctx, "cont", nil, nil))
		f, err := os.Open("/dev/null")
		must(t, err)
		must(t, q.Execute(ctx, "getfd", map[string]string{"fdname": "one"}, nil, f), q.Execute(ctx, "closefd", map[string]string{"fdname": "one"}, nil))
		f.Close()
		must(t, q.Close())
	}
	m.ask("list /")
}

func TestADiskIsOneMachinesOnly(t *testing.T) {
	first := start(t, options{})
	if said := refused(t, options{disk: first.disk}); !strings.Contains(said, "lock") {
		t.Errorf("a second machine with the same disk says %q", said)
	}
	if got := first.ask("write /dev/vdb"); got != "written" {
		t.Errorf("the first one's disk: %s", got)
	}
}

// TestKVMInside runs the loop by real KVM, on the processor extension that QEMU emulates.
func TestKVMInside(t *testing.T) {
	modules := kernel.Guest
	modules.Optional = append(slices.Clone(modules.Optional), "irqbypass", "kvm", "kvm_amd")
	m := start(t, options{modules: &modules, change: func(args []string) []string {
		i := slices.Index(args, "-cpu")
		args[i+1] = "max"
		return args
	}})
	begin := time.Now()
	got := m.ask("loop")
	t.Logf("%s, after %v", got, time.Since(begin).Round(time.Millisecond))
	if !strings.HasPrefix(got, loop.Runs+" ") {
		t.Errorf("real KVM is judged as %q", got)
	}
}
