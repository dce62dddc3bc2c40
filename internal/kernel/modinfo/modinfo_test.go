package modinfo

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/internal/synth"
)

func TestRead(t *testing.T) {
	for sentence, c := range map[string]struct {
		words []string
		want  Info
	}{
		"all it says": {
			[]string{"alias=virtio:d00000002v*", "alias=crc32c", "alias=crypto-crc32c", "license=GPL", "depends=virtio,virtio_ring", "softdep=pre: crc32c aes post: late", "name=virtio_blk", "vermagic=6.1.0-9-test SMP preempt ", "intree=Y"},
			Info{Name: "virtio_blk", Depends: []string{"virtio", "virtio_ring"}, Before: []string{"crc32c", "aes"}, Aliases: []string{"crc32c", "crypto_crc32c"}, Release: "6.1.0-9-test"},
		},
		"no dependencies":             {[]string{"depends=", "name=pvpanic"}, Info{Name: "pvpanic"}},
		"a dash is an underscore":     {[]string{"depends=rng-core", "name=virtio-rng"}, Info{Name: "virtio_rng", Depends: []string{"rng_core"}}},
		"a name that is a path":       {[]string{"name=../../etc/passwd"}, Info{}},
		"wishes without pre: or with": {[]string{"softdep=a b post: c pre: d"}, Info{Before: []string{"d"}}},
		"nothing":                     {nil, Info{}},
	} {
		got, err := Read(bytes.NewReader(synth.Module(elf.EM_X86_64, c.words...)))
		c.want.Machine = elf.EM_X86_64
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", sentence, err, diff)
		}
	}
}

func TestWhatIsNoModuleIsRefused(t *testing.T) {
	module := synth.Plain(elf.EM_X86_64, "a")
	for sentence, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":                {nil, "no module"},
		"text":                   {[]byte("#!/bin/sh\n"), "no module"},
		"a kernel":               {synth.Vmlinux(elf.EM_X86_64, synth.Release, nil), "no section .modinfo"},
		"half of one":            {module[:len(module)/2], "no module"},
		"a dependency on a path": {synth.Module(elf.EM_X86_64, "depends=../x"), "can be no module"},
		"too many dependencies":  {synth.Module(elf.EM_X86_64, "depends="+strings.Repeat("a,", 1000)), "can be no module"},
		"more than it may say":   {synth.Module(elf.EM_X86_64, "alias="+strings.Repeat("x", int(MaxInfo))), "at most 4M"},
	} {
		_, err := Read(bytes.NewReader(c.data))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", sentence, err, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for file, want := range map[string]string{
		"kernel/drivers/char/hw_random/virtio-rng.ko": "virtio_rng", "a/erofs.ko.xz": "erofs", "8021q.ko.zst": "8021q",
		"modules.dep": "", "x.so": "", ".ko": "", "a b.ko": "", "kernel/../..ko": "", strings.Repeat("a", 57) + ".ko": "",
	} {
		if got := Name(file); got != want {
			t.Errorf("%s is module %q, want %q", file, got, want)
		}
	}
}

func TestSignaturesAreTakenOff(t *testing.T) {
	module := synth.Plain(elf.EM_X86_64, "a")
	signed := synth.Signed(module, 300)
	if got := Unsigned(signed); !bytes.Equal(got, module) {
		t.Errorf("%d bytes are left of a module of %d", len(got), len(module))
	}
	lying := bytes.Clone(signed)
	copy(lying[len(lying)-28-4:], []byte{0xff, 0xff, 0xff, 0xff})
	for sentence, data := range map[string][]byte{
		"no signature": module, "a signature longer than the file": lying, "only the mark": []byte("~Module signature appended~\n"), "nothing": nil,
	} {
		if got := Unsigned(data); !bytes.Equal(got, data) {
			t.Errorf("%s: it was changed", sentence)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(synth.Plain(elf.EM_X86_64, "virtio_blk", "virtio", "virtio_ring"))
	f.Add(synth.Signed(synth.Plain(elf.EM_AARCH64, "a"), 10))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		body := Unsigned(data)
		if !bytes.HasPrefix(data, body) {
			t.Error("what is left is no beginning of it")
		}
		info, err := Read(bytes.NewReader(body))
		if err != nil {
			return
		}
		for _, name := range append(append([]string{info.Name}, info.Depends...), info.Before...) {
			if name != "" && Canonical(name) != name {
				t.Errorf("%q is no module's name", name)
			}
		}
	})
}
