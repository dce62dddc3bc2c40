package virtiofs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// What follows runs inside the guest: this test's program is its /init.

// modules are loaded in this order from the initramfs.
var modules = []string{"virtio_ring", "virtio", "virtio_mmio", "fuse", "virtiofs"}

// verdict begins the last line on the console.
const verdict = "VERDICT: "

// boot is the guest's process 1.
func boot() {
	err := inside()
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(verdict + map[bool]string{true: "good", false: "bad"}[err == nil])
	time.Sleep(200 * time.Millisecond) // the console is slow, and power-off does not wait for it
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func inside() error {
	for _, m := range modules {
		f, err := os.Open("/" + m + ".ko")
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", m, err)
		}
		f.Close()
	}
	for _, tag := range []string{"rw", "ro", "one", "roone"} {
		err := errors.Join(os.Mkdir("/"+tag, 0o755), unix.Mount(tag, "/"+tag, "virtiofs", 0, ""))
		if err != nil {
			return fmt.Errorf("mount %s: %w", tag, err)
		}
	}
	for _, check := range []struct {
		name string
		run  func() error
	}{
		{"owners", owners}, {"names and links", names}, {"locks", locks}, {"mappings", mappings}, {"attributes", attributes},
		{"what is made", made}, {"past memory", direct}, {"without a name", unnamed}, {"a folder that moves", moved}, {"many names", many}, {"at once", atOnce}, {"a large file", large}, {"no devices", devices}, {"what is mounted below", below}, {"read-only", readOnly}, {"one file", oneFile}, {"speed", speed},
	} {
		began := time.Now()
		if err := check.run(); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		fmt.Printf("%s: %v\n", check.name, time.Since(began).Round(time.Millisecond))
	}
	return nil
}

func wantOwner(path string, uid, gid uint32) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil || st.Uid != uid || st.Gid != gid {
		return fmt.Errorf("%s is %d:%d's, %v", path, st.Uid, st.Gid, err)
	}
	return nil
}

func wantText(path, text string) error {
	if data, err := os.ReadFile(path); err != nil || string(data) != text {
		return fmt.Errorf("%s holds %q, %v", path, data, err)
	}
	return nil
}

func owners() error {
	// As an ordinary user: with that user's rights, and what is made is his.
	asUser := func() error {
		if err := errors.Join(unix.Setfsgid(777), unix.Setfsuid(777)); err != nil {
			return err
		}
		err := os.WriteFile("/rw/open/of-user", nil, 0o640)
		if _, denied := os.ReadFile("/rw/of-1234"); !errors.Is(denied, unix.EACCES) {
			err = errors.Join(err, fmt.Errorf("somebody else's file: %w", denied))
		}
		return errors.Join(err, unix.Setfsuid(0), unix.Setfsgid(0))
	}
	return errors.Join(
		wantOwner("/rw", 1000, 1001), wantOwner("/rw/of-1234", 1234, 1235), wantText("/rw/of-1234", "from outside"),
		os.WriteFile("/rw/new", []byte("inside"), 0o600), os.Chown("/rw/new", 4321, 4322), wantOwner("/rw/new", 4321, 4322),
		asUser(), wantOwner("/rw/open/of-user", 777, 777))
}

func names() error {
	err := errors.Join(os.WriteFile("/rw/a", []byte("x"), 0o600), os.Rename("/rw/a", "/rw/b"), os.Link("/rw/b", "/rw/c"), os.Symlink("c", "/rw/d"),
		os.MkdirAll("/rw/x/y", 0o755), os.Rename("/rw/x", "/rw/z"), unix.Mkfifo("/rw/fifo", 0o600))
	var st unix.Stat_t
	if failed := unix.Stat("/rw/d", &st); failed != nil || st.Nlink != 2 {
		err = errors.Join(err, failed, fmt.Errorf("%d links", st.Nlink))
	}
	return err
}

func locks() error {
	one, err := os.Create("/rw/lock")
	if err != nil {
		return err
	}
	defer one.Close()
	two, err := os.OpenFile("/rw/lock", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer two.Close()
	if err := unix.Flock(int(one.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	if err := unix.Flock(int(two.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		return fmt.Errorf("a second exclusive lock: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- unix.Flock(int(two.Fd()), unix.LOCK_EX) }()
	time.Sleep(20 * time.Millisecond)
	if err := unix.Flock(int(one.Fd()), unix.LOCK_UN); err != nil {
		return err
	}
	if err := <-waited; err != nil {
		return fmt.Errorf("wait for a lock: %w", err)
	}
	if err := unix.FcntlFlock(one.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 10}); err != nil {
		return err
	}
	if err := unix.FcntlFlock(two.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 5, Len: 10}); err != unix.EAGAIN {
		return fmt.Errorf("a second range lock: %v", err)
	}
	return nil
}

func mappings() error {
	f, err := os.Create("/rw/map")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(8192); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	copy(m[5000:], "mapped")
	got := make([]byte, 6)
	if _, err := f.ReadAt(got, 5000); err != nil || string(got) != "mapped" {
		return fmt.Errorf("read %q, %v", got, err)
	}
	return unix.Msync(m, unix.MS_SYNC)
}

func attributes() error {
	const path = "/rw/attributes"
	// user::rw-, user:1234:r--, group::---, mask::r--, other::--- as linux/posix_acl_xattr.h has it.
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 210, 4, 0, 0, 4, 0, 0, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	for name, value := range map[string][]byte{"user.strata": []byte("value"), "system.posix_acl_access": acl, "security.capability": capability} {
		got := make([]byte, 100)
		if err := unix.Setxattr(path, name, value, 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		if n, err := unix.Getxattr(path, name, got); err != nil || !bytes.Equal(got[:n], value) {
			return fmt.Errorf("%s: %v, %w", name, got[:max(n, 0)], err)
		}
	}
	return nil
}

// made is what a folder gives to what is made in it, and what who makes it asks for.
func made() error {
	if err := errors.Join(os.Mkdir("/rw/team", 0o755), os.Chown("/rw/team", 0, 500), unix.Chmod("/rw/team", 0o2777)); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	asUser := func() error {
		if err := errors.Join(unix.Setfsgid(777), unix.Setfsuid(777)); err != nil {
			return err
		}
		return errors.Join(os.WriteFile("/rw/team/file", nil, 0o640), os.Mkdir("/rw/team/folder", 0o750), os.Symlink("file", "/rw/team/link"),
			unix.Mkfifo("/rw/team/fifo", 0o600), unix.Mkdir("/rw/team/sticky", 0o1700), unix.Setfsuid(0), unix.Setfsgid(0))
	}
	if err := asUser(); err != nil {
		return err
	}
	for name, mode := range map[string]uint32{"file": unix.S_IFREG | 0o640, "folder": unix.S_IFDIR | 0o2750, "link": unix.S_IFLNK | 0o777, "fifo": unix.S_IFIFO | 0o600, "sticky": unix.S_IFDIR | 0o3700} {
		var st unix.Stat_t
		if err := unix.Lstat("/rw/team/"+name, &st); err != nil || st.Uid != 777 || st.Gid != 500 || st.Mode != mode {
			return fmt.Errorf("%s is %d:%d's, mode %o, %v", name, st.Uid, st.Gid, st.Mode, err)
		}
	}
	fd, err := unix.Open("/rw/team/suid", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o4711)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o7777 != 0o4711 || st.Uid != 0 || st.Gid != 500 {
		return fmt.Errorf("%d:%d, mode %o, %v", st.Uid, st.Gid, st.Mode, err)
	}
	return nil
}

// direct is a file past the machine's memory, whose transfers are as a program likes.
func direct() error {
	f, err := os.OpenFile("/rw/direct", os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 100), 7); err != nil {
		return err
	}
	if n, err := f.ReadAt(make([]byte, 50), 3); n != 50 {
		return fmt.Errorf("%d bytes, %w", n, err)
	}
	if _, err := unix.IoctlGetInt(int(f.Fd()), unix.TCGETS); !errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("it is a terminal: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/rw", &st); err != nil || st.Ino == 0 {
		return fmt.Errorf("the volume's root is inode %d, %w", st.Ino, err)
	}
	a, err := os.OpenFile("/rw/direct", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer a.Close()
	if _, err := a.WriteString("end"); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil || info.Size() != 110 {
		return fmt.Errorf("%v, %w", info, err)
	}
	return nil
}

// unnamed is a file that is used after its name is gone, and longer than it is remembered.
func unnamed() error {
	f, err := os.Create("/rw/unnamed")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove("/rw/unnamed"); err != nil {
		return err
	}
	if _, err := f.WriteString("still here"); err != nil {
		return err
	}
	time.Sleep(1100 * time.Millisecond)
	info, err := f.Stat()
	if err != nil || info.Size() != 10 {
		return fmt.Errorf("%v, %w", info, err)
	}
	if err := errors.Join(f.Truncate(5), f.Chmod(0o600), f.Sync()); err != nil {
		return err
	}
	got := make([]byte, 10)
	if n, err := f.ReadAt(got, 0); string(got[:n]) != "still" {
		return fmt.Errorf("%q, %w", got[:n], err)
	}
	return nil
}

// moved is a folder with an open file in it that gets another name, and what comes after that.
func moved() error {
	if err := os.MkdirAll("/rw/before/deep", 0o755); err != nil {
		return err
	}
	f, err := os.Create("/rw/before/deep/file")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Rename("/rw/before", "/rw/after"); err != nil {
		return err
	}
	_, err = f.WriteString("text")
	return errors.Join(err, f.Sync(), os.WriteFile("/rw/after/deep/other", nil, 0o600), wantText("/rw/after/deep/file", "text"),
		unix.Renameat2(unix.AT_FDCWD, "/rw/after/deep/file", unix.AT_FDCWD, "/rw/after/deep/other", unix.RENAME_EXCHANGE), wantText("/rw/after/deep/other", "text"), os.RemoveAll("/rw/after"))
}

func many() error {
	const n = 1500
	for i := range n {
		if err := os.Symlink("nowhere", fmt.Sprintf("/rw/open/a-name-that-is-not-short-%d", i)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir("/rw/open")
	if err != nil || len(entries) < n {
		return fmt.Errorf("%d names, %w", len(entries), err)
	}
	for _, e := range entries {
		if e.Type() == os.ModeSymlink {
			err = errors.Join(err, os.Remove("/rw/open/"+e.Name()))
		}
	}
	return err
}

// atOnce writes and reads files by several programs, of which each sees its own.
func atOnce() error {
	ended := make(chan error)
	const n = 8
	for i := range n {
		go func() {
			name, data := fmt.Sprint("/rw/open/at-once-", i), bytes.Repeat([]byte{byte(i)}, 1<<20)
			err := os.WriteFile(name, data, 0o600)
			got, failed := os.ReadFile(name) // it was written through, and is read anew when it is opened
			if !bytes.Equal(got, data) {
				err = errors.Join(err, failed, fmt.Errorf("%s holds something else", name))
			}
			ended <- errors.Join(err, os.Remove(name))
		}()
	}
	var err error
	for range n {
		err = errors.Join(err, <-ended)
	}
	return err
}

func large() error {
	f, err := os.Create("/rw/large")
	if err != nil {
		return err
	}
	defer os.Remove("/rw/large")
	defer f.Close()
	const far = 5 << 30
	if _, err := f.WriteAt([]byte("end"), far); err != nil {
		return err
	}
	got := make([]byte, 3)
	if _, err := f.ReadAt(got, far); err != nil || string(got) != "end" {
		return fmt.Errorf("read %q, %v", got, err)
	}
	return nil
}

func devices() error {
	if err := unix.Mknod("/rw/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("a device was made: %w", err)
	}
	return nil
}

func below() error { return wantText("/rw/mounted/file", "below") }

func readOnly() error {
	if err := os.WriteFile("/ro/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("written: %w", err)
	}
	if err := os.Remove("/ro/file"); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("removed: %w", err)
	}
	return wantText("/ro/file", "read me")
}

func oneFile() error {
	for _, dir := range []string{"/one", "/roone"} {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || entries[0].Name() != fileName {
			return fmt.Errorf("%v, %w", entries, err)
		}
		if err := os.WriteFile(dir+"/other", nil, 0o600); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("a file beside it: %w", err)
		}
	}
	// As the agent does it: only the file is shown.
	err := errors.Join(os.WriteFile("/place", nil, 0o600), unix.Mount("/one/"+fileName, "/place", "", unix.MS_BIND, ""),
		wantText("/place", "only me"), wantOwner("/place", 5, 6), os.WriteFile("/place", []byte("changed"), 0o600))
	if err != nil {
		return err
	}
	if err := os.WriteFile("/roone/"+fileName, nil, 0o600); !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("a read-only file: %w", err)
	}
	return wantText("/roone/"+fileName, "read me")
}

func speed() error {
	const size = 32 << 20
	data := make([]byte, 1<<20)
	f, err := os.Create("/rw/speed")
	if err != nil {
		return err
	}
	defer f.Close()
	began := time.Now()
	for range size / len(data) {
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	wrote := time.Since(began)
	began = time.Now()
	for i := range 200 {
		if err := os.WriteFile(filepath.Join("/rw/open", fmt.Sprint("f", i)), nil, 0o600); err != nil {
			return err
		}
	}
	fmt.Printf("writing %d MiB/s, making a file %v\n", int(size/wrote.Seconds())>>20, time.Since(began)/200)
	return nil
}
