package disk_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

// length is the image's.
func length(t *testing.T, path string) unit.Size {
	t.Helper()
	_, size, err := disk.Usage(path)
	must(t, err)
	return unit.Size(size)
}

// TestADiskGrowsWhileItIsMounted, and stays whole: within its first block of groups'
// descriptors, beyond it, and by resize2fs afterwards.
func TestADiskGrowsWhileItIsMounted(t *testing.T) {
	require.Root(t)
	may := disk.CanGrowMounted()
	require.Host(t, "cap-sys-resource", may == nil, "the kernel lets only who has it have a mounted file system grow")
	p, path := made(t, 64*unit.MiB)
	tree, err := p.Mount(ctx, path)
	must(t, err)
	for _, size := range []unit.Size{300 * unit.MiB, 7 * unit.GiB, 64 * unit.GiB} {
		must(t, p.GrowMounted(path, size))
		var st unix.Statfs_t
		must(t, unix.Statfs(inTree(tree, mount.Upper), &st))
		if has := unit.Size(st.Blocks) * unit.Size(st.Bsize); has < size*9/10 || has > size || length(t, path) != size {
			t.Errorf("of %s the file system has %s, the image %s", size, has, length(t, path))
		}
		must(t, os.WriteFile(inTree(tree, mount.Upper)+"/"+size.String(), make([]byte, 20<<20), 0o600))
	}
	if err := p.GrowMounted(path, 64*unit.GiB); err != nil {
		t.Errorf("to the size that it has: %v", err)
	}
	if err := p.GrowMounted(path, disk.CeilingSize); !fault.Is(err, fault.Conflict) || length(t, path) != 64*unit.GiB {
		t.Errorf("beyond what it was made for: %v, image %s", err, length(t, path))
	}
	must(t, tree.Close())
	kept(t, p, path)
	must(t, p.Grow(ctx, path, 2*unit.TiB))
	kept(t, p, path)
}

// TestWhoMayNotHaveADiskGrow is told so before anything is changed.
func TestWhoMayNotHaveADiskGrow(t *testing.T) {
	p, path := made(t, 64*unit.MiB)
	tree, err := p.Mount(ctx, path)
	must(t, err)
	defer tree.Close()
	if disk.CanGrowMounted() == nil {
		t.Skip("this process may: TestADiskGrowsWhileItIsMounted")
	}
	if err := p.GrowMounted(path, unit.GiB); !fault.Is(err, fault.Unable) || length(t, path) != 64*unit.MiB {
		t.Errorf("%v, image %s", err, length(t, path))
	}
}

func TestLengthen(t *testing.T) {
	p, path := made(t, 64*unit.MiB)
	if size, err := p.Lengthen(path, 100*unit.MiB+1); err != nil || size != 101*unit.MiB || length(t, path) != size {
		t.Errorf("%s, %v, image %s", size, err, length(t, path))
	}
	kept(t, p, path) // a longer image is no harm
	for _, c := range []struct {
		size unit.Size
		kind fault.Kind
	}{
		{100 * unit.MiB, fault.Invalid},               // shorter
		{disk.CeilingSize + unit.MiB, fault.Invalid},  // more than any
		{65 * unit.GiB, fault.Conflict},               // more than was set aside for it
		{disk.CeilingSize - unit.GiB, fault.Conflict}, // likewise
	} {
		if _, err := p.Lengthen(path, c.size); !fault.Is(err, c.kind) || length(t, path) != 101*unit.MiB {
			t.Errorf("%s: %v, image %s; want %s", c.size, err, length(t, path), c.kind)
		}
	}
	if _, err := p.Lengthen(path+"-", unit.GiB); !fault.Is(err, fault.Missing) {
		t.Errorf("of none: %v", err)
	}
	dir := t.TempDir()
	full := newPool(t, dir, disk.Options{Reserve: room(t, dir) + 100*unit.GiB})
	if _, err := full.Lengthen(path, unit.GiB); !fault.Is(err, fault.Busy) || length(t, path) != 101*unit.MiB {
		t.Errorf("on a full host: %v", err)
	}
}

// TestRoomToGrowIsSetAside: sixteen times a disk's size at least, as mkfs.ext4 made it.
func TestRoomToGrowIsSetAside(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, disk.Options{})
	for _, c := range []struct{ size, least unit.Size }{
		{disk.FloorSize, 64 * unit.GiB}, {unit.GiB, 64 * unit.GiB}, {10 * unit.GiB, 160 * unit.GiB},
		{600 * unit.GiB, 600*unit.GiB + 3*unit.TiB}, {disk.CeilingSize, disk.CeilingSize},
	} {
		path := filepath.Join(dir, c.size.String()+".ext4")
		must(t, p.Create(ctx, path, c.size))
		got, err := disk.LiveCeiling(path)
		if err != nil || got < c.least || got > c.least+c.least/8 {
			t.Errorf("a disk of %s can become %s, %v; want %s", c.size, got, err, c.least)
		}
		must(t, os.Remove(path))
	}
}

// TestACraftedSuperblockIsNoHarm to who looks how large a disk can become.
func TestACraftedSuperblockIsNoHarm(t *testing.T) {
	_, path := made(t, disk.FloorSize)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	whole := make([]byte, 1024)
	_, err = f.ReadAt(whole, 1024)
	must(t, err)
	with := func(change func(super []byte)) (unit.Size, error) {
		super := append([]byte(nil), whole...)
		change(super)
		_, err := f.WriteAt(super, 1024)
		must(t, err)
		return disk.LiveCeiling(path)
	}
	le := binary.LittleEndian
	for name, change := range map[string]func([]byte){
		"no magic":          func(b []byte) { le.PutUint16(b[0x38:], 0) },
		"blocks of 4 GiB":   func(b []byte) { le.PutUint32(b[0x18:], 22) },
		"groups of nothing": func(b []byte) { le.PutUint32(b[0x20:], 0) },
	} {
		if got, err := with(change); !fault.Is(err, fault.Unable) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for name, change := range map[string]func([]byte){
		"all blocks there are": func(b []byte) { le.PutUint32(b[4:], 1<<32-1); le.PutUint32(b[0x150:], 1<<32-1) },
		"endless groups":       func(b []byte) { le.PutUint32(b[0x20:], 1<<32-1) },
		"no descriptors":       func(b []byte) { le.PutUint16(b[0xFE:], 0) },
		"large descriptors":    func(b []byte) { le.PutUint16(b[0xFE:], 1<<16-1) },
		"all set aside":        func(b []byte) { le.PutUint16(b[0xCE:], 1<<16-1) },
	} {
		if got, err := with(change); err != nil || got <= 0 || got > disk.CeilingSize {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	for name, change := range map[string]func([]byte){
		"descriptors among its groups": func(b []byte) { le.PutUint32(b[0x60:], le.Uint32(b[0x60:])|0x10) },
		"nothing set aside":            func(b []byte) { le.PutUint32(b[0x5C:], le.Uint32(b[0x5C:])&^0x10) }, // of an older strata
	} {
		if got, err := with(change); err != nil || got != disk.FloorSize {
			t.Errorf("%s: %s, %v; want the size that it has", name, got, err)
		}
	}
	must(t, f.Truncate(1500))
	if _, err := disk.LiveCeiling(path); !fault.Is(err, fault.Unable) {
		t.Errorf("cut: %v", err)
	}
}
