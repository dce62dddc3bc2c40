package bootdisk

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/strata-project/strata/internal/require"
)

var update = flag.Bool("update", false, "assemble the machine code anew, and write it")

// assemble makes the machine code of code/<name>.S, which runs at the given address.
func assemble(t *testing.T, name string, at int) []byte {
	t.Helper()
	dir := t.TempDir()
	object, binary := filepath.Join(dir, name+".o"), filepath.Join(dir, name+".bin")
	args := []string{"--64", "-o", object}
	for _, symbol := range slices.Sorted(maps.Keys(symbols)) {
		args = append(args, "--defsym", fmt.Sprintf("%s=%#x", symbol, symbols[symbol]))
	}
	for _, cmd := range []*exec.Cmd{
		exec.Command(require.Tool(t, "as"), append(args, "code/"+name+".S")...),
		exec.Command(require.Tool(t, "ld"), "-m", "elf_x86_64", "-Ttext", fmt.Sprintf("%#x", at), "--oformat", "binary", "-o", binary, object),
	} {
		if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
			t.Fatalf("%s: %v\n%s", cmd.Path, err, out)
		}
	}
	data, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTheMachineCodeIsWhatItsSourceSays(t *testing.T) {
	out, err := exec.Command(require.Tool(t, "as"), "--version").Output()
	require.Host(t, "x86-assembler", err == nil && bytes.Contains(out, []byte("x86_64")), "the assembler is for another processor")
	for _, c := range []struct {
		name string
		at   int
		have []byte
		room int
	}{
		{"mbr", 0x7c00, mbrCode, mbrRoom},
		{"bios", codeAt, biosCode, codeSectors * sector},
		{"efi", efiCodeAt, efiCode, efiDataAt - efiCodeAt},
	} {
		code := assemble(t, c.name, c.at)
		t.Logf("%s: %d of %d bytes", c.name, len(code), c.room)
		if len(code) > c.room {
			t.Errorf("%s has %d bytes, and there is room for %d", c.name, len(code), c.room)
		}
		if *update {
			if err := os.WriteFile("code/"+c.name+".bin", code, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !bytes.Equal(code, c.have) {
			t.Errorf("code/%s.bin is not what code/%s.S comes to: go test -run Machine -update", c.name, c.name)
		}
	}
}
