package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/internal/synth"
)

// hardware are the modules by which the tests' kernel drives a machine's.
func hardware() (files []synth.File) {
	for _, name := range []string{"virtio_pci", "ahci", "sd_mod", "e1000e"} {
		files = append(files, synth.File{Path: modulesOf + "/kernel/drivers/" + name + ".ko", Data: plain(name)})
	}
	return files
}

func TestAMachineTakesAKernelThatKnowsItsHardware(t *testing.T) {
	s := open(t)
	lacking := func(says string) {
		t.Helper()
		_, err := s.GetFor("", Machine)
		if !fault.Is(err, fault.Missing) || fault.All(err)[0].Field != "kernel" || !strings.Contains(err.Error(), says) || !strings.Contains(fault.All(err)[0].Hint, "strata kernel add debian:linux-image-") {
			t.Errorf("without one: %v (%s)", err, fault.All(err)[0].Hint)
		}
	}
	lacking("there is no kernel for machines yet")
	cloud, err := importing(t, s, synth.Tar(distribution(t)...), "cloud")
	if err != nil {
		t.Fatal(err)
	}
	lacking("kernel cloud has no e1000e, ahci, sd_mod")
	full, err := importing(t, s, synth.Tar(append(distribution(t), hardware()...)...), "full")
	if err != nil {
		t.Fatal(err)
	}
	for sentence, c := range map[string]struct {
		ref    string
		wanted Wanted
		want   string
	}{
		"a guest takes the default one":       {"", Guest, cloud.ID},
		"a machine takes the one that it can": {"", Machine, full.ID},
		"a guest takes the one it names":      {"full", Guest, full.ID},
		"a machine takes the one it names":    {"full", Machine, full.ID},
	} {
		if k, err := s.GetFor(c.ref, c.wanted); err != nil || k.ID != c.want {
			t.Errorf("%s: %s, %v", sentence, k.Name, err)
		}
	}
	if _, err := s.GetFor("cloud", Machine); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "has no e1000e, ahci") || !strings.Contains(fault.All(err)[0].Hint, "strata kernel add debian:linux-image-") {
		t.Errorf("one that is named and lacks hardware: %v (%s)", err, fault.All(err)[0].Hint)
	}
	if err := os.Remove(cloud.Vmlinux()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetFor("", Guest); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a default one that is damaged: %v", err)
	}
}

// loadable is a kernel of one segment.
func loadable(t *testing.T) []byte {
	const at, place = 64 + 56, 1 << 24 // of the segment, in the file and in memory
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: place,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64,
	}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	var b bytes.Buffer
	for _, part := range []any{h, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: at, Paddr: place, Filesz: 6, Memsz: 4096}, []byte("kernel")} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestABootDiskIsMadeOnceAndPruned(t *testing.T) {
	s := open(t)
	k, err := importing(t, s, synth.Tar(append(distribution(t), hardware()...)...), "")
	if err != nil {
		t.Fatal(err)
	}
	// The tests' kernels have nothing to load.
	if err := os.WriteFile(k.Vmlinux(), loadable(t), 0o644); err != nil {
		t.Fatal(err)
	}
	set, err := k.Set(Machine)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	image, err := s.Initramfs(t.Context(), k, agent, set)
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.BootDisk(t.Context(), k, image, "quiet")
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(first.Path)
	if err != nil || before.Size() != first.Size || first.Size < image.Size {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := s.BootDisk(t.Context(), k, image, "quiet")
	if err != nil || again != first {
		t.Errorf("%+v, %v", again, err)
	}
	if after, err := os.Stat(first.Path); err != nil || !os.SameFile(before, after) {
		t.Errorf("it was made once more: %v", err)
	}
	other, err := s.BootDisk(t.Context(), k, image, "loud")
	if err != nil || other.Path == first.Path {
		t.Errorf("another command line: %+v, %v", other, err)
	}
	if _, err := s.BootDisk(t.Context(), k, image, "a\nb"); !fault.Is(err, fault.Invalid) {
		t.Errorf("a command line that is none: %v", err)
	}
	if _, err := s.Prune(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []Image{image, first, other} {
		if _, err := os.Stat(gone.Path); err == nil {
			t.Errorf("%s is still there", gone.Path)
		}
	}
}
