package inflate

import (
	"bytes"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
)

const text = "some words, and the same words again, and the same words again"

func packed(t testing.TB, format string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = struct {
		io.Writer
		io.Closer
	}{&out, io.NopCloser(nil)}
	var err error
	switch format {
	case Gzip:
		w = gzip.NewWriter(&out)
	case Zstd:
		w, err = zstd.NewWriter(&out)
	case XZ:
		w, err = xz.WriterConfig{BlockSize: 30}.NewWriter(&out)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestZstdMayBeginWithAFrameThatIsPassedOver(t *testing.T) {
	for _, first := range []byte{0x50, 0x5f} {
		stream := append([]byte{first, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c'}, packed(t, Zstd, []byte(text))...)
		r, format, err := Reader(bytes.NewReader(stream))
		if err != nil || format != Zstd {
			t.Fatalf("format is %s, %v", format, err)
		}
		defer r.Close()
		if data, err := io.ReadAll(r); err != nil || string(data) != text {
			t.Errorf("read %q, %v", data, err)
		}
	}
}

func TestReaderTellsFormatsByTheirBytes(t *testing.T) {
	for _, format := range []string{None, Gzip, Zstd, XZ} {
		t.Run(format, func(t *testing.T) {
			r, got, err := Reader(bytes.NewReader(packed(t, format, []byte(text))))
			if err != nil || got != format {
				t.Fatalf("format is %s, %v", got, err)
			}
			defer r.Close()
			data, err := io.ReadAll(r)
			if err != nil || string(data) != text {
				t.Errorf("read %q, %v", data, err)
			}
		})
	}
}

func TestXZOfTheToolItself(t *testing.T) {
	tool := require.Tool(t, "xz")
	data := strings.Repeat(text, 50_000)
	for _, args := range [][]string{{"-c"}, {"-9c"}, {"-0c", "--block-size=100000"}, {"-c", "-T2", "--block-size=1MiB"}, {"-c", "-Cnone"}, {"-c", "-Csha256"}} {
		cmd := exec.Command(tool, args...)
		cmd.Stdin = strings.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := Reader(bytes.NewReader(out))
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != data {
			t.Errorf("%v: read %d bytes, %v", args, len(got), err)
		}
	}
}

func TestALargeDictionaryIsRefused(t *testing.T) {
	in := packed(t, XZ, []byte(text))
	// Each block header is size, flags, sizes, filter, length, dictionary: say 4 GiB in the last.
	at := bytes.LastIndex(in, []byte{xzLZMA2, 1})
	if at < xzStreamHeader+20 {
		t.Fatalf("the second block was not found: %d", at)
	}
	in[at+2] = 40
	r, _, err := Reader(bytes.NewReader(in))
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "above the 128M") {
		t.Errorf("error is %v", err)
	}
	// zstd: a frame header with a window of 2 GiB (RFC 8878, 3.1.1.1.2).
	r, _, err = Reader(bytes.NewReader([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 1, 0, 0}))
	if err == nil {
		_, err = io.ReadAll(r)
	}
	if err == nil {
		t.Error("a large zstd window was accepted")
	}
}

func TestABrokenStreamIsInvalidAndABrokenSourceIsNot(t *testing.T) {
	for _, format := range []string{Gzip, Zstd, XZ} {
		in := packed(t, format, []byte(strings.Repeat(text, 100)))
		changed := bytes.Clone(in)
		changed[len(in)/2] ^= 0xff
		changed[len(in)-5] ^= 0xff
		for what, c := range map[string]struct {
			r    io.Reader
			kind fault.Kind
		}{
			"truncated": {bytes.NewReader(in[:len(in)-3]), fault.Invalid},
			"changed":   {bytes.NewReader(changed), fault.Invalid},
			"cut off":   {io.MultiReader(bytes.NewReader(in[:len(in)-3]), iotest.ErrReader(errors.New("no network"))), fault.Internal},
		} {
			r, _, err := Reader(c.r)
			if err == nil {
				_, err = io.ReadAll(r)
			}
			if err == nil || fault.KindOf(err) != c.kind {
				t.Errorf("%s %s: %v (%s), want %s", format, what, err, fault.KindOf(err), c.kind)
			}
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, format := range []string{None, Gzip, Zstd, XZ} {
		f.Add(packed(f, format, []byte(text)))
	}
	f.Add([]byte("BZh91AY&SY"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := Reader(bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
	})
}
