package foreign

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/require"
)

// TestPartsAreChosen looks at what is planned, and at a machine that has it all.
func TestPartsAreChosen(t *testing.T) {
	b := start(t)
	image, disquette := bootSector(t, deaf...), file(t, "floppy.img", make([]byte, 1440<<10))
	parts := []string{"--disk-bus", "virtio", "--nic-model", "virtio", "--cpu-model", "Nehalem", "--floppy", disquette, "--nested", "--memory", "32M", "--disk-image", image}
	plan := b.Run(append([]string{"plan"}, parts...)...)
	for _, want := range []string{"disk0: disk on virtio-blk", "card0: virtio", "Nehalem, with virtualization inside", "floppy0: floppy", "TPM: none"} {
		if !strings.Contains(plan, want) {
			t.Errorf("no %q is planned: %s", want, plan)
		}
	}
	b.Run(append([]string{"run", "--name", "parts"}, parts...)...)
	b.Run("kill", "parts")
	b.Run("rm", "parts")
	for what, c := range map[string]struct {
		args []string
		says string
	}{
		"IDE on a q35":            {[]string{"--disk-bus", "ide"}, "foreign.disk_bus"},
		"USB":                     {[]string{"--disk-bus", "usb"}, "foreign.disk_bus"},
		"a card that is not made": {[]string{"--nic-model", "ne2000"}, "foreign.card"},
		"a floppy by UEFI":        {[]string{"--floppy", disquette, "--firmware", "uefi"}, "foreign.floppy"},
		"a floppy that is a disk": {[]string{"--floppy", file(t, "large.img", make([]byte, 4<<20))}, "foreign.floppy"},
		"the host's processor":    {[]string{"--cpu-model", "host"}, "foreign.cpu_model"},
	} {
		if out := b.Try(append([]string{"create", "--disk-image", image}, c.args...)...); out.Status == 0 || !strings.Contains(out.Stderr, c.says) {
			t.Errorf("%s: %+v", what, out)
		}
	}
	require.Tool(t, "swtpm")
	if plan := b.Run("plan", "--tpm", "busybox"); !strings.Contains(plan, "machine (") || !strings.Contains(plan, "TPM: 2.0") {
		t.Errorf("a TPM for a template: %s", plan)
	}
}

// TestAMachineHasATPM has the firmware start one, and looks at what it keeps.
func TestAMachineHasATPM(t *testing.T) {
	b := start(t)
	require.Tool(t, "swtpm")
	image := bootSector(t, keeps...)
	b.Run("run", "--name", "trusted", "--tpm", "--memory", "32M", "--disk-image", image)
	hears(t, b, "trusted", 0, `<`) // the firmware has started it by then
	kept := func(name string) []byte {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(b.Places.State, "environments", show(t, b, name).ID, "tpm", "tpm2-*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("of the TPM of %s is kept %v, %v", name, found, err)
		}
		content, err := os.ReadFile(found[0])
		if err != nil || len(content) == 0 {
			t.Fatalf("%d bytes of %s, %v", len(content), found[0], err)
		}
		return content
	}
	pid := show(t, b, "trusted").KeeperPID
	if out, _ := exec.Command("ps", "--ppid", strconv.Itoa(pid), "-o", "comm=").Output(); !strings.Contains(string(out), "swtpm") {
		t.Errorf("beside QEMU run %q", out)
	}
	before := kept("trusted")
	at := len(serialLine(b, "trusted"))
	b.Run("kill", "trusted")
	b.Run("clone", "trusted", "other")
	if !bytes.Equal(kept("other"), before) {
		t.Error("a clone's TPM knows something else")
	}
	b.Run("start", "trusted")
	hears(t, b, "trusted", at, `<`)
	b.Run("start", "other")
	b.Run("rm", "-f", "trusted", "other")
	if out, _ := exec.Command("ps", "--ppid", strconv.Itoa(pid), "-o", "comm=").Output(); len(out) != 0 {
		t.Errorf("it left %q", out)
	}
}

// TestSecureBootRefusesWhatIsNotSigned has OVMF with Microsoft's keys look at memtest86+,
// which boots by the other OVMF.
func TestSecureBootRefusesWhatIsNotSigned(t *testing.T) {
	b := start(t)
	_, err := os.Stat("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
	require.Host(t, "ovmf", err == nil, "the package ovmf is not installed")
	b.Run("run", "--name", "secure", "--firmware", "secure", "--iso", memtest(t), "--memory", "192M")
	hears(t, b, "secure", 0, `BdsDxe: failed to load.*Access Denied`)
	b.Run("rm", "-f", "secure")
}
