package foreign

import (
	"bytes"
	"context"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// TestTheAgentOfStockHardwareAnswersBySerialPorts is about a template's machine in which
// nothing knows that it is virtual.
func TestTheAgentOfStockHardwareAnswersBySerialPorts(t *testing.T) {
	b := start(t)
	bed.MachineKernel(t, b)
	flags := []string{"--stratum", "machine", "--agent-port", "serial", "--memory", "256M"}
	plan := b.Run(append(append([]string{"plan"}, flags...), "busybox")...)
	if !strings.Contains(plan, "serial (COM3, COM4)") || strings.Contains(plan, "virtio") {
		t.Errorf("the plan: %s", plan)
	}
	b.Run(append(append([]string{"run", "-d", "--name", "stock"}, flags...), "busybox", "sleep", "100000")...)
	if cards := b.Run("exec", "stock", "cat", "/proc/bus/pci/devices"); strings.Contains(cards, "1af4") || !strings.Contains(cards, "8086") {
		t.Errorf("what is on the bus: %s", cards)
	}
	// A program is as binary as anything. A zone tells what it is.
	head := []string{"head", "-c", "1048576", "/bin/busybox"}
	want := b.Try(append([]string{"run", "--rm", "busybox"}, head...)...).Stdout
	ctx, cancel := context.WithTimeout(t.Context(), require.Patience(2*time.Minute))
	defer cancel()
	began := time.Now()
	got, err := b.Command(ctx, append([]string{"exec", "stock"}, head...)...).Output()
	if err != nil || string(got) != want || len(want) != 1<<20 {
		t.Errorf("%v: %d of %d bytes came out, the same: %v", err, len(got), len(want), string(got) == want)
	}
	t.Logf("1 MiB of output took %v", time.Since(began))
	data := make([]byte, 32<<10)
	_, _ = rand.Read(data) // never fails
	if out := b.Feed(bytes.NewReader(data), "exec", "-i", "stock", "cat"); out.Status != 0 || out.Stdout != string(data) {
		t.Errorf("status %d, %d of %d bytes came back, the same: %v; %s", out.Status, len(out.Stdout), len(data), out.Stdout == string(data), out.Stderr)
	}
	t.Logf("with 32 KiB there and back took %v", time.Since(began))
	if out := b.Try("exec", "stock", "sh", "-c", "echo out; echo err >&2; exit 7"); out.Status != 7 || out.Stdout != "out\n" || out.Stderr != "err\n" {
		t.Errorf("%+v", out)
	}
	b.Run("suspend", "stock")
	b.Run("resume", "stock")
	if got := b.Run("exec", "stock", "echo", "again"); got != "again" {
		t.Errorf("after it was suspended: %q", got)
	}
	b.Run("stop", "stock")
}
