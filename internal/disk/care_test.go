package disk_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/mount"
	"github.com/strata-project/strata/internal/mount/loop"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

// made is a disk with one file on it, attached nowhere.
func made(t *testing.T, size unit.Size) (p *disk.Pool, path string) {
	dir := t.TempDir()
	p = newPool(t, dir, disk.Options{})
	path = filepath.Join(dir, "disk.ext4")
	must(t, p.Create(ctx, path, size))
	use(t, p, path, func(upper string) { must(t, os.WriteFile(upper+"/file", []byte("kept"), 0o600)) })
	return p, path
}

// use mounts the disk at path for a while.
func use(t *testing.T, p *disk.Pool, path string, do func(upper string)) {
	t.Helper()
	tree, err := p.Mount(ctx, path)
	must(t, err)
	defer tree.Close()
	do(inTree(tree, mount.Upper))
}

func kept(t *testing.T, p *disk.Pool, path string) {
	t.Helper()
	use(t, p, path, func(upper string) {
		if text, err := os.ReadFile(upper + "/file"); err != nil || string(text) != "kept" {
			t.Errorf("read back: %q, %v", text, err)
		}
	})
	fsck(t, path)
}

func room(t *testing.T, dir string) unit.Size {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	return unit.Size(st.Bavail) * unit.Size(st.Bsize)
}

// TestNoDiskGrowsOnAFullHost: what could not be written of it would be lost.
func TestNoDiskGrowsOnAFullHost(t *testing.T) {
	_, path := made(t, 64*unit.MiB)
	p := newPool(t, t.TempDir(), disk.Options{Reserve: 8 * unit.MiB})
	dir := t.TempDir()
	must(t, unix.Mount("none", dir, "tmpfs", 0, "size=16M"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	small, filler := filepath.Join(dir, "disk.ext4"), filepath.Join(dir, "filler")
	must(t, exec.Command("cp", "--sparse=always", path, small).Run())
	must(t, os.WriteFile(filler, make([]byte, room(t, dir)), 0o600))
	if err := p.Grow(ctx, small, 40*unit.GiB); !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "too full for a larger disk") {
		t.Errorf("grow: %v", err)
	}
	kept(t, p, small)
	must(t, os.Remove(filler))
	must(t, p.Grow(ctx, small, 40*unit.GiB))
	kept(t, p, small)
}

func TestGrow(t *testing.T) {
	for name, c := range map[string]struct{ from, to unit.Size }{
		"a little":            {64 * unit.MiB, 65 * unit.MiB},
		"from least to large": {disk.FloorSize, 20 * unit.GiB},
		"the default":         {10 * unit.GiB, 100 * unit.GiB},
		"to what it is":       {64 * unit.MiB, 64 * unit.MiB},
	} {
		t.Run(name, func(t *testing.T) {
			p, path := made(t, c.from)
			must(t, p.Grow(ctx, path, c.to))
			_, size, err := disk.Usage(path)
			must(t, err)
			if size != int64(c.to) {
				t.Errorf("the image has %d bytes, not %d", size, c.to)
			}
			kept(t, p, path)
			use(t, p, path, func(upper string) {
				if free := room(t, upper); free < c.to*8/10 && c.to > disk.FloorSize*2 {
					t.Errorf("of %v only %v are free", c.to, free)
				}
			})
			if err := p.Grow(ctx, path, c.to-unit.MiB); !fault.Is(err, fault.Invalid) {
				t.Errorf("shrunk: %v", err)
			}
		})
	}
	p, path := made(t, disk.FloorSize)
	if err := p.Grow(ctx, path+"x", unit.GiB); !fault.Is(err, fault.Missing) {
		t.Errorf("grown what is not there: %v", err)
	}
	must(t, os.WriteFile(path, make([]byte, disk.FloorSize), 0o600))
	if err := p.Grow(ctx, path, unit.GiB); !fault.Is(err, fault.Unable) {
		t.Errorf("grown what is no file system: %v", err)
	}
}

func TestGrowingGoesOnWhenNobodyWaits(t *testing.T) {
	const large = 512 * unit.GiB
	p, path := made(t, 2*unit.GiB)
	inTime, cancel := context.WithCancel(ctx)
	defer cancel()
	grown := make(chan error, 1)
	go func() { grown <- p.Grow(inTime, path, large) }()
	for size := int64(0); size < int64(large) && len(grown) == 0; {
		_, size, _ = disk.Usage(path)
	}
	cancel() // resize2fs is about to work
	must(t, <-grown)
	if used, _, err := disk.Usage(path); err != nil || used > int64(256*unit.MiB) {
		t.Errorf("it takes %d bytes, %v: its tables were written out", used, err)
	}
	kept(t, p, path)
	use(t, p, path, func(upper string) {
		if free := room(t, upper); free < large*8/10 {
			t.Errorf("only %v are free", free)
		}
	})
	if err := p.Grow(inTime, path, 2*large); err == nil {
		t.Error("begun though nobody waited")
	}
}

func TestADiskWhoseGrowthWasCutIsMendedBeforeItIsUsed(t *testing.T) {
	debugfs := require.Tool(t, "debugfs")
	edit := func(path string, commands ...string) {
		t.Helper()
		for _, c := range commands {
			out, err := exec.Command(debugfs, "-w", "-R", c, path).CombinedOutput()
			if err != nil {
				t.Fatalf("debugfs %s: %v\n%s", c, err, out)
			}
		}
	}
	cut := "set_super_value state 3" // as resize2fs leaves it until it is done
	counts := []string{"set_block_group 0 free_blocks_count 7", "set_block_group 0 checksum calc", cut}
	p, path := made(t, disk.FloorSize)
	edit(path, counts...)
	kept(t, p, path)
	edit(path, counts...)
	held, err := p.Hold(ctx, path)
	must(t, err)
	fsck(t, path)
	must(t, held.Close())
	// A suspended system goes on with the disk as it knows it.
	edit(path, append(counts, "feature needs_recovery")...)
	before, err := os.ReadFile(path)
	must(t, err)
	held, err = p.Hold(ctx, path)
	must(t, err)
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, before) {
		t.Errorf("the disk of a suspended system was changed, %v", err)
	}
	must(t, held.Close())
	edit(path, "feature -needs_recovery", "clri <2>", cut)
	if _, err := p.Mount(ctx, path); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("mounted without a root folder: %v", err)
	}
	if _, err := p.Hold(ctx, path); !fault.Is(err, fault.Unable) {
		t.Errorf("held without a root folder: %v", err)
	}
	must(t, os.WriteFile(path, nil, 0o600))
	if _, err := p.Mount(ctx, path); !fault.Is(err, fault.Unable) {
		t.Errorf("mounted what is empty: %v", err)
	}
}

func TestDeletedSpaceComesBack(t *testing.T) {
	const much = 64 * unit.MiB
	for name, c := range map[string]struct{ attached, trim bool }{
		"by trim while it is mounted":     {true, true},
		"by trim while it is not mounted": {false, true},
		"by itself once it is unmounted":  {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, path := made(t, unit.GiB)
			trim := func() {
				_, err := p.Trim(ctx, path)
				must(t, err)
			}
			use(t, p, path, func(upper string) {
				must(t, os.WriteFile(upper+"/big", bytes.Repeat([]byte("x"), much), 0o600))
				f, err := os.Open(upper)
				must(t, err)
				must(t, unix.Syncfs(int(f.Fd())))
				f.Close()
				if used, _, _ := disk.Usage(path); used < much {
					t.Errorf("%d bytes are used with a file of %d", used, much)
				}
				must(t, os.Remove(upper+"/big"))
				if c.attached {
					trim()
				}
			})
			if c.trim && !c.attached {
				trim()
			}
			if used, _, _ := disk.Usage(path); used > much/4 {
				t.Errorf("%d bytes are used after a file of %d is gone", used, much)
			}
			kept(t, p, path)
		})
	}
}

func TestClone(t *testing.T) {
	p, path := made(t, unit.GiB)
	to := path + ".copy"
	must(t, p.Clone(ctx, path, to))
	kept(t, p, to)
	kept(t, p, path)
	used, size, err := disk.Usage(to)
	must(t, err)
	if size != unit.GiB || used > 16*unit.MiB {
		t.Errorf("the copy takes %d bytes of %d", used, size)
	}
	if err := p.Clone(ctx, path, to); !fault.Is(err, fault.Conflict) {
		t.Errorf("copied over another: %v", err)
	}
	use(t, p, path, func(string) {
		if err := p.Clone(ctx, path, to+"2"); !fault.Is(err, fault.Conflict) {
			t.Errorf("copied while mounted: %v", err)
		}
	})
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := p.Clone(stopped, path, to+"3"); err == nil {
		t.Error("copied for a caller who is gone")
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/.part*"); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestAnImageTornFromItsUserMounts(t *testing.T) {
	p, path := made(t, unit.GiB)
	torn := path + ".torn"
	use(t, p, path, func(upper string) {
		for _, name := range []string{"a", "b", "c"} {
			f, err := os.Create(upper + "/" + name)
			must(t, err)
			_, err = f.WriteString("synced")
			must(t, err)
			must(t, f.Sync())
			f.Close()
		}
		// What the host would have after a power cut.
		out, err := exec.Command("cp", "--sparse=always", path, torn).CombinedOutput()
		if err != nil {
			t.Fatalf("cp: %v: %s", err, out)
		}
	})
	use(t, p, torn, func(upper string) {
		if text, err := os.ReadFile(upper + "/c"); err != nil || string(text) != "synced" {
			t.Errorf("what was synced reads %q, %v", text, err)
		}
	})
	kept(t, p, torn)
}

func TestImagesThatAreRefused(t *testing.T) {
	p, path := made(t, disk.FloorSize)
	dir := filepath.Dir(path)
	for name, c := range map[string]struct {
		make func(at string) error
		kind fault.Kind
	}{
		"nothing there":    {func(string) error { return nil }, fault.Missing},
		"a folder":         {func(at string) error { return os.Mkdir(at, 0o700) }, fault.Internal},
		"a link to a disk": {func(at string) error { return os.Symlink(path, at) }, fault.Internal},
		"a pipe":           {func(at string) error { return unix.Mkfifo(at, 0o600) }, fault.Unable},
		"zeros":            {func(at string) error { return os.WriteFile(at, make([]byte, unit.MiB), 0o600) }, fault.Unable},
		"nothing in it":    {func(at string) error { return os.WriteFile(at, nil, 0o600) }, fault.Unable},
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
			must(t, c.make(at))
			tree, err := p.Mount(ctx, at)
			if err == nil || fault.KindOf(err) != c.kind {
				tree.Close()
				t.Errorf("kind %v, %v", fault.KindOf(err), err)
			}
			t.Log(err)
		})
	}
}

func TestPoolTakesOverWhatIsReady(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/pool", 0o700))
	must(t, os.WriteFile(dir+"/pool/.part-1.ext4", nil, 0o600))
	must(t, os.WriteFile(dir+"/pool/ready-0-5-x.ext4", nil, 0o600))
	first, err := disk.OpenPool(ctx, dir+"/pool", disk.Options{Ready: 2})
	must(t, err)
	waitReady(t, dir, 2)
	must(t, first.Close())
	before, _ := filepath.Glob(dir + "/pool/ready-*")
	second := newPool(t, dir, disk.Options{Ready: 2})
	waitReady(t, dir, 2)
	after, _ := filepath.Glob(dir + "/pool/ready-*")
	if len(before) != 2 || strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("before %v, after %v", before, after)
	}
	if left, _ := filepath.Glob(dir + "/pool/.part*"); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	// Disks that are made and not used hold no device for long.
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		must(t, second.Create(ctx, filepath.Join(dir, name), 0))
		waitReady(t, dir, 1)
	}
	all, err := disk.Attached(dir)
	must(t, err)
	if len(all) > 4 {
		t.Errorf("%d devices for 2 ready disks and 5 unused ones", len(all))
	}
	must(t, second.Remove(filepath.Join(dir, "e")))
	must(t, second.Remove(filepath.Join(dir, "e")))
}

func TestADiskThatIsHeldIsMountedNowhere(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, disk.Options{Ready: 1})
	path := filepath.Join(dir, "disk")
	attached := func() bool {
		all, err := disk.Attached(dir)
		must(t, err)
		return slices.ContainsFunc(all, func(one loop.Attached) bool { return one.Image == path })
	}
	for tries := 20; ; tries-- {
		waitReady(t, dir, 1)
		must(t, p.Create(ctx, path, 0)) // the ready one, which the pool has mounted
		if attached() {
			break
		}
		if tries == 0 {
			t.Fatal("it was never mounted ahead, so this test shows nothing")
		}
		must(t, p.Remove(path)) // it was ready, and not mounted yet
	}
	held, err := p.Hold(ctx, path)
	must(t, err)
	if attached() {
		t.Error("it is attached to the host as well")
	}
	fsck(t, path)
	if flags, err := unix.FcntlInt(held.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 || flags&unix.O_ACCMODE != unix.O_RDWR {
		t.Errorf("its descriptor has flags %#x, %v", flags, err)
	}
	if _, err := p.Hold(ctx, path); !fault.Is(err, fault.Conflict) {
		t.Errorf("held twice: %v", err)
	}
	if _, err := p.Mount(ctx, path); !fault.Is(err, fault.Conflict) {
		t.Errorf("held and mounted: %v", err)
	}
	must(t, held.Close())
	tree, err := p.Mount(ctx, path)
	must(t, err)
	must(t, tree.Close())
}

func TestKilledDaemonLeavesNothingAttached(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir+"/of-the-next", disk.Options{})
	path := filepath.Join(dir, "disk.ext4")
	must(t, p.Create(ctx, path, 0))
	use(t, p, path, func(string) { // of an environment that runs on
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), poolVariable+"="+dir+"/pool")
		must(t, child.Start())
		waitReady(t, dir, 2)
		must(t, child.Process.Kill())
		_ = child.Wait() // it was killed
		all, err := disk.Attached(dir)
		must(t, err)
		if len(all) != 1 || all[0].Image != path {
			t.Errorf("attached after the kill: %v", all)
		}
	})
	next, err := disk.OpenPool(ctx, dir+"/pool", disk.Options{Ready: 2})
	must(t, err)
	waitReady(t, dir, 2)
	must(t, next.Close())
	ready, _ := filepath.Glob(dir + "/pool/ready-*")
	if len(ready) != 2 {
		t.Errorf("the next pool has %v", ready)
	}
	for _, image := range ready {
		fsck(t, image)
	}
}

func TestStampedSuperblockIsSound(t *testing.T) {
	_, path := made(t, disk.FloorSize)
	super := make([]byte, 1024)
	read := func() {
		f, err := os.Open(path)
		must(t, err)
		_, err = f.ReadAt(super, 1024)
		must(t, err)
		f.Close()
	}
	read()
	before := bytes.Clone(super[0x68:0x78])
	if sum := disk.SuperSum(super); !bytes.Equal(super[0x3FC:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}) {
		t.Fatalf("the checksum that mkfs or the kernel wrote is %x, ours %x", super[0x3FC:], sum)
	}
	must(t, disk.StampUUID(path))
	read()
	if bytes.Equal(before, super[0x68:0x78]) {
		t.Error("the UUID is the old one")
	}
	fsck(t, path)
	must(t, os.WriteFile(path, make([]byte, 4096), 0o600))
	if disk.StampUUID(path) == nil {
		t.Error("stamped what is no file system")
	}
}
