package image

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/argv"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

// TestMain makes this program the stage that becomes QEMU as well.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Command {
		os.Exit(confine.Run(os.Args))
	}
	os.Exit(m.Run())
}

// tool is QEMU as the host has it, as a user that has no files.
func tool(t *testing.T) Tool {
	t.Helper()
	require.Root(t)
	require.Tool(t, "qemu-system-x86_64")
	program, err := qemu.Find(t.Context())
	require.Host(t, "qemu-system-x86_64", err == nil, fmt.Sprint(err))
	return Tool{QEMU: program, Agent: "/proc/self/exe", User: 700000}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), require.Patience(time.Minute))
	t.Cleanup(cancel)
	return ctx
}

// noise is a disk with data, holes, and data at its end.
func noise(size int) []byte {
	d := disk(size, "")
	source := rand.NewChaCha8([32]byte{7})
	source.Read(d[1024 : 300<<10])
	source.Read(d[size-70<<10:])
	return d
}

// opened is an image, with no other files.
func opened(t *testing.T, path string, rules Rules) *Chain {
	t.Helper()
	c, err := Open(path, rules)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// write makes an image of a foreign format with content, by QEMU.
func write(t *testing.T, tool Tool, format Format, content []byte, path string) {
	t.Helper()
	ctx := bounded(t)
	raw := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	c := opened(t, raw, Rules{Format: Raw})
	var args argv.Args
	args.Chain("source", []argv.Image{{Format: "raw", FD: firstFD + 2}}, true, false)
	err := tool.fill(ctx, path, args, []*os.File{c.Layers[0].Parts[0].File}, func(s *session) error {
		options := map[string]any{"driver": string(format), "file": "file", "size": len(content)}
		if err := s.run(ctx, "blockdev-create", map[string]any{"options": options}, none); err != nil {
			return err
		}
		if err := s.qmp.Execute(ctx, "blockdev-add", map[string]any{"driver": string(format), "node-name": "target", "file": "file"}, nil); err != nil {
			return err
		}
		if err := s.run(ctx, "blockdev-backup", map[string]any{"device": "source", "target": "target", "sync": "full", "auto-dismiss": false}, none); err != nil {
			return err
		}
		return s.qmp.Execute(ctx, "blockdev-del", map[string]any{"node-name": "target"}, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// same compares the disk of an image with what it is to be.
func same(t *testing.T, tool Tool, c *Chain, want []byte) {
	t.Helper()
	path, said := filepath.Join(t.TempDir(), "copy"), int64(-1)
	err := tool.Import(bounded(t), c, path, Raw, func(done, total int64) {
		if done < said || done > total || total != int64(len(want)) {
			t.Errorf("after %d, it has done %d of %d", said, done, total)
		}
		said = done
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) || said != int64(len(want)) {
		t.Errorf("%s: the copy is another disk: %d bytes of %d, %v; said to be done: %d", c.Path, len(got), len(want), err, said)
	}
}

func TestEveryFormatIsReadAsQEMUReadsIt(t *testing.T) {
	tool := tool(t)
	want := noise(4 << 20)
	for _, format := range []Format{Raw, QCOW2, VMDK, VDI, VHDX} {
		t.Run(string(format), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			if format == Raw {
				if err := os.WriteFile(path, want, 0o400); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, tool, format, want, path)
			}
			c := opened(t, path, Rules{})
			if c.Format != format || c.Size != 4*unit.MiB {
				t.Fatalf("it is %s of %s", c.Format, c.Size)
			}
			same(t, tool, c, want)

			// An overlay reads the same, and an import of it needs nothing else.
			dir := t.TempDir()
			over, whole := filepath.Join(filepath.Dir(path), "over"), filepath.Join(dir, "whole")
			if err := tool.Overlay(bounded(t), c, over, 8*unit.MiB); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(over, Rules{Within: dir}); err == nil || !strings.Contains(err.Error(), "which is outside") {
				t.Errorf("an overlay leads out of its folder: %v", err)
			}
			o := opened(t, over, Rules{Within: filepath.Dir(path)})
			larger := append(bytes.Clone(want), make([]byte, 4<<20)...)
			same(t, tool, o, larger)
			if err := tool.Import(bounded(t), o, whole, QCOW2, none); err != nil {
				t.Fatal(err)
			}
			same(t, tool, opened(t, whole, Rules{}), larger)
			if info, err := os.Stat(whole); err != nil || info.Size() > 3<<20 { // QEMU copies a MiB at a time
				t.Errorf("holes are kept as data: %v, %v", info, err)
			}
		})
	}
}

func TestAFileThatEndsWithinASectorIsRead(t *testing.T) {
	tool := tool(t)
	cd := append(iso(), "end"...)
	path := filepath.Join(t.TempDir(), "cd.iso")
	if err := os.WriteFile(path, cd, 0o600); err != nil {
		t.Fatal(err)
	}
	same(t, tool, opened(t, path, Rules{CD: true}), append(cd, make([]byte, sector-3)...))
}

func TestADiskInSeveralFilesIsPutTogether(t *testing.T) {
	tool := tool(t)
	want, dir := noise(3<<20), t.TempDir()
	write(t, tool, VMDK, want[1<<20:2<<20], filepath.Join(dir, "b")) // which has a descriptor that is not asked
	for name, content := range map[string][]byte{
		"a": want[:1<<20], "c": append(make([]byte, 1024), want[2<<20:]...),
		"d.vmdk": extents(`RW 2048 FLAT "a" 0`, `RW 2048 SPARSE "b"`, `RW 2048 FLAT "c" 2`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := opened(t, filepath.Join(dir, "d.vmdk"), Rules{Within: dir})
	same(t, tool, c, want)
	path := filepath.Join(t.TempDir(), "one")
	if err := tool.Import(bounded(t), c, path, QCOW2, none); err != nil {
		t.Fatal(err)
	}
	same(t, tool, opened(t, path, Rules{}), want)
	if err := tool.Overlay(bounded(t), c, path+"over", 0); !fault.Is(err, fault.Unable) {
		t.Errorf("an overlay of it: %v", err)
	}
}

func TestWhatCannotBeMadeLeavesNothing(t *testing.T) {
	tool := tool(t)
	dir := t.TempDir()
	for name, content := range map[string][]byte{"disk": noise(1 << 20), "broken": qcow2(3, nil), "there": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good, broken := opened(t, filepath.Join(dir, "disk"), Rules{}), opened(t, filepath.Join(dir, "broken"), Rules{})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	nobody := tool
	nobody.Agent = "/nonesuch/strata-agent"
	to, full := filepath.Join(dir, "new"), t.TempDir()
	if err := unix.Mount("none", full, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(full, unix.MNT_DETACH)
	for sentence, c := range map[string]struct {
		do   func() error
		kind fault.Kind
		says string
	}{
		"a copy of what QEMU does not take": {func() error { return tool.Import(bounded(t), broken, to, QCOW2, none) }, fault.Invalid, "QEMU"},
		"a copy in another format":          {func() error { return tool.Import(bounded(t), good, to, VDI, none) }, fault.Invalid, "one of raw, qcow2"},
		"a copy over another image":         {func() error { return tool.Import(bounded(t), good, filepath.Join(dir, "there"), Raw, none) }, fault.Conflict, "there is an image"},
		"an overlay over another image":     {func() error { return tool.Overlay(bounded(t), good, filepath.Join(dir, "there"), 0) }, fault.Conflict, "there is an image"},
		"an overlay that is smaller":        {func() error { return tool.Overlay(bounded(t), good, to, 512) }, fault.Invalid, "cannot lie over"},
		"a copy that is given up":           {func() error { return tool.Import(over, good, to, Raw, none) }, fault.Internal, "canceled"},
		"a copy to where there is no room":  {func() error { return tool.Import(bounded(t), good, filepath.Join(full, "new"), QCOW2, none) }, fault.Busy, "the disk is full"},
		"a copy by nobody":                  {func() error { return nobody.Import(bounded(t), good, to, Raw, none) }, fault.Unable, "start /nonesuch"},
	} {
		t.Run(sentence, func(t *testing.T) {
			err := c.do()
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error()+fault.All(err)[0].Hint, c.says) {
				t.Errorf("got %v (%s)", err, fault.KindOf(err))
			}
			if left, _ := os.ReadDir(dir); len(left) != 3 {
				t.Errorf("left: %v", left)
			}
		})
	}
	running, _ := exec.Command("pgrep", "-u", "700000").Output()
	if len(bytes.TrimSpace(running)) > 0 {
		t.Errorf("QEMU still runs: %s", running)
	}
}
