package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz/lzma"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/internal/synth"
	"github.com/strata-project/strata/internal/require"
)

func vmlinux(words ...string) []byte {
	return synth.Vmlinux(Machine(), synth.Release, synth.PVH(), words...)
}

// sized puts the size behind a payload, as the kernel's build does.
func sized(packed, plain []byte) []byte {
	return binary.LittleEndian.AppendUint32(packed, uint32(len(plain)))
}

func packLZ4(t testing.TB, plain []byte) []byte {
	t.Helper()
	out := []byte{0x02, 0x21, 0x4c, 0x18}
	for len(plain) > 0 {
		n := min(len(plain), lz4Block)
		block := make([]byte, lz4.CompressBlockBound(n))
		var c lz4.Compressor
		size, err := c.CompressBlock(plain[:n], block)
		if err != nil || size == 0 {
			t.Fatal("lz4 packs nothing", err)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(size))
		out = append(out, block[:size]...)
		plain = plain[n:]
	}
	return out
}

func packGzip(plain []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

func packZstd(t testing.TB, plain []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(plain, nil)
}

func packLZMA(t testing.TB, plain []byte) []byte {
	var b bytes.Buffer
	w, err := lzma.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

// packXZ packs as the kernel's build does.
func packXZ(t testing.TB, plain []byte, options ...string) []byte {
	t.Helper()
	cmd := exec.Command(require.Tool(t, "xz"), append([]string{"-c", "--check=crc32"}, options...)...)
	cmd.Stdin = bytes.NewReader(plain)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpack(t testing.TB, data []byte) ([]byte, Info, error) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "vmlinux")
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := Unpack(t.Context(), bytes.NewReader(data), int64(len(data)), f)
	got, rerr := os.ReadFile(to)
	if rerr != nil {
		t.Fatal(rerr)
	}
	return got, info, err
}

func TestUnpack(t *testing.T) {
	plain := vmlinux()
	large := append(vmlinux(), bytes.Repeat([]byte("more than one block "), 1<<20)...)
	for sentence, c := range map[string]struct {
		data   []byte
		want   []byte
		format string
	}{
		"a vmlinux":                        {plain, plain, ELF},
		"a bzImage of lz4":                 {synth.BzImage(sized(packLZ4(t, plain), plain), synth.Release), plain, BzImage},
		"a bzImage of several lz4 blocks":  {synth.BzImage(sized(packLZ4(t, large), large), synth.Release), large, BzImage},
		"a bzImage of gzip":                {synth.BzImage(packGzip(plain), synth.Release), plain, BzImage},
		"a bzImage of zstd":                {synth.BzImage(sized(packZstd(t, plain), plain), synth.Release), plain, BzImage},
		"a bzImage of lzma":                {synth.BzImage(sized(packLZMA(t, plain), plain), synth.Release), plain, BzImage},
		"a bzImage that is not compressed": {synth.BzImage(plain, synth.Release), plain, BzImage},
		"a bzImage without a release":      {synth.BzImage(packGzip(plain), ""), plain, BzImage},
	} {
		t.Run(sentence, func(t *testing.T) {
			got, info, err := unpack(t, c.data)
			if err != nil || info.Format != c.format || info.Release != synth.Release || info.Arch != runtime.GOARCH {
				t.Fatalf("%+v, %v", info, err)
			}
			if !bytes.Equal(got, c.want) {
				t.Errorf("%d bytes were unpacked, want %d, or others", len(got), len(c.want))
			}
		})
	}
}

func TestUnpackXZWithTheFilterForX86Code(t *testing.T) {
	code, err := os.ReadFile(require.Tool(t, "xz")) // a program, with calls and jumps
	if err != nil {
		t.Fatal(err)
	}
	if self, err := os.Executable(); err == nil { // and a large one
		more, err := os.ReadFile(self)
		if err != nil {
			t.Fatal(err)
		}
		code = append(code, more[:min(len(more), 6<<20)]...)
	}
	plain := append(vmlinux(), code...)
	for sentence, options := range map[string][]string{
		"with it": {"--x86", "--lzma2=preset=1,dict=32MiB"}, "without": {"--lzma2=preset=1"}, "of no bytes that repeat": {"--x86", "--lzma2=preset=0"},
	} {
		got, _, err := unpack(t, synth.BzImage(sized(packXZ(t, plain, options...), plain), synth.Release))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %v, or what came out differs", sentence, err)
		}
	}
}

func TestWhatIsNoKernelForHereIsRefused(t *testing.T) {
	plain := vmlinux()
	good := synth.BzImage(sized(packLZ4(t, plain), plain), synth.Release)
	changed := func(at int, b ...byte) []byte {
		out := bytes.Clone(good)
		copy(out[at:], b)
		return out
	}
	other := elf.EM_AARCH64
	if runtime.GOARCH == "arm64" {
		other = elf.EM_X86_64
	}
	arm := make([]byte, 128)
	copy(arm[56:], "ARM\x64")
	for sentence, c := range map[string]struct {
		data []byte
		kind fault.Kind
		want string
	}{
		"nothing":                       {nil, fault.Invalid, "empty"},
		"text":                          {[]byte(strings.Repeat("hello ", 200)), fault.Invalid, "no kernel"},
		"half a bzImage":                {good[:len(good)/2], fault.Invalid, "truncated"},
		"only its header":               {good[:0x250], fault.Invalid, "truncated"},
		"a payload that is damaged":     {changed((2+1)*512+16+4, 0xff, 0xff, 0xff, 0xff), fault.Invalid, "lz4 stream is broken"},
		"no payload":                    {changed(0x24c, 0, 0, 0, 0), fault.Invalid, "no payload"},
		"a payload of no known format":  {changed((2+1)*512+16, 1, 2, 3, 4), fault.Invalid, "no known compression"},
		"an ancient boot protocol":      {changed(0x206, 0x03, 0x02), fault.Unable, "2.03"},
		"a kernel for 32 bits":          {changed(0x236, 0, 0), fault.Unable, "32-bit"},
		"lzo":                           {changed((2+1)*512+16, 0x89, 'L', 'Z', 'O'), fault.Unable, "lzo"},
		"an arm64 Image":                {arm, fault.Unable, "arm64"},
		"a vmlinux for another machine": {synth.Vmlinux(other, synth.Release, synth.PVH()), fault.Unable, "and this host is"},
		"an ordinary program":           {synth.Vmlinux(Machine(), "", synth.PVH()), fault.Invalid, "no Linux kernel"},
		"a module":                      {synth.Plain(Machine(), "a"), fault.Invalid, "but no kernel"},
		"half a vmlinux":                {plain[:len(plain)/2], fault.Invalid, ""},
	} {
		_, _, err := unpack(t, c.data)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (%s), want %s, %q", sentence, err, fault.KindOf(err), c.kind, c.want)
		}
	}
	if runtime.GOARCH == "amd64" {
		for sentence, notes := range map[string][]byte{"no notes": nil, "others": synth.Note("Xen", 5, nil), "another owner's": synth.Note("Yen", 18, nil), "a broken one": {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 18, 0, 0, 0}} {
			_, _, err := unpack(t, synth.Vmlinux(Machine(), synth.Release, notes))
			if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "CONFIG_PVH") {
				t.Errorf("%s: %v", sentence, err)
			}
		}
	}
}

func TestAKernelThatUnpacksWithoutEndIsStopped(t *testing.T) {
	if testing.Short() {
		t.Skip("writes as much as a kernel may have")
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range MaxKernel>>20 + 1 {
		w.Write(zeros)
	}
	w.Close()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := synth.BzImage(b.Bytes(), synth.Release)
	if _, err := Unpack(t.Context(), bytes.NewReader(data), int64(len(data)), f); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "more than 768M") {
		t.Errorf("error is %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Unpack(ended, bytes.NewReader(data), int64(len(data)), f); err != context.Canceled {
		t.Errorf("after the context's end: %v", err)
	}
}

func TestMentions(t *testing.T) {
	text := strings.Repeat("x", 1<<20-4) + "\x00erofs\x00 virtio_blk\x00 \x00ext4"
	got, err := Mentions(strings.NewReader(text), []string{"erofs", "virtio_blk", "ext4"})
	if err != nil || len(got) != 1 || !got["erofs"] {
		t.Errorf("mentioned are %v, %v", got, err)
	}
}

func FuzzUnpack(f *testing.F) {
	plain := vmlinux()
	f.Add(plain)
	f.Add(synth.BzImage(sized(packLZ4(f, plain), plain), synth.Release))
	f.Add(synth.BzImage(packGzip(plain), synth.Release))
	f.Add(synth.BzImage(sized(packLZMA(f, plain), plain), synth.Release))
	if _, err := exec.LookPath("xz"); err == nil {
		f.Add(synth.BzImage(sized(packXZ(f, plain, "--x86", "--lzma2=dict=1MiB"), plain), synth.Release))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		to, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()
		info, err := Unpack(t.Context(), bytes.NewReader(data), int64(len(data)), to)
		if err == nil && (info.Release == "" || strings.ContainsAny(info.Release, "/\x00 ") || info.Release[0] == '.') {
			t.Errorf("release is %q", info.Release)
		}
	})
}
