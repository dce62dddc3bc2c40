package foreign

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/strata-project/strata/internal/require"
)

// echo is a system in one sector, made from code/echo.S: it counts its starts on the
// disk's second sector, says so on screen and serial line, and repeats each key.
//
//go:embed code/echo.bin
var echo []byte

const (
	echoMedium = 0x1ae // where it says what it is on
	echoSize   = 4 << 20
)

// echoDisk is a disk that it boots from.
func echoDisk() []byte {
	disk := make([]byte, echoSize) // a BIOS wants whole cylinders
	copy(disk, echo)
	disk[512] = '0'
	return disk
}

// echoCD is a CD that it boots from. Source: ECMA-119, 8; El Torito 1.0, figures 2 to 5
// and 7.
func echoCD() []byte {
	const block = 2048
	cd := make([]byte, 32*block)
	volume := cd[16*block:]
	copy(volume, "\x01CD001\x01")
	copy(cd[17*block:], "\x00CD001\x01EL TORITO SPECIFICATION")
	binary.LittleEndian.PutUint32(cd[17*block+0x47:], 19)
	copy(cd[18*block:], "\xffCD001\x01")
	catalog := cd[19*block:]
	catalog[0], catalog[30], catalog[31] = 1, 0x55, 0xaa // for x86
	var sum uint16
	for at := 0; at < 32; at += 2 {
		sum += binary.LittleEndian.Uint16(catalog[at:])
	}
	binary.LittleEndian.PutUint16(catalog[28:], -sum)
	catalog[32], catalog[38] = 0x88, 4 // bootable, as it is, four sectors of 512
	binary.LittleEndian.PutUint32(catalog[40:], 20)
	system := cd[20*block:]
	copy(system, echo)
	copy(system[echoMedium:], "cd  ")
	system[512] = '0'
	return cd
}

// TestTheEchoIsWhatItsSourceSays assembles it anew.
func TestTheEchoIsWhatItsSourceSays(t *testing.T) {
	out, err := exec.Command(require.Tool(t, "as"), "--version").Output()
	require.Host(t, "x86-assembler", err == nil && bytes.Contains(out, []byte("x86_64")), "the assembler is for another processor")
	dir := t.TempDir()
	object, binary := filepath.Join(dir, "echo.o"), filepath.Join(dir, "echo.bin")
	for _, cmd := range []*exec.Cmd{
		exec.Command("as", "--64", "-o", object, "code/echo.S"),
		exec.Command(require.Tool(t, "ld"), "-m", "elf_x86_64", "-Ttext", "0x7c00", "--oformat", "binary", "-o", binary, object),
	} {
		if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
			t.Fatalf("%s: %v\n%s", cmd.Path, err, out)
		}
	}
	if made, err := os.ReadFile(binary); err != nil || !bytes.Equal(made, echo) {
		t.Errorf("code/echo.bin is not what code/echo.S comes to: %v", err)
	}
	if string(echo[echoMedium:][:4]) != "disk" {
		t.Errorf("it says %q of its medium", echo[echoMedium:][:4])
	}
}
