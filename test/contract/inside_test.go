package contract

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// insideVolume is the argument with which this test binary, run inside an
// environment, checks a volume.
const insideVolume = "inside-volume"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == insideVolume {
		if err := checkVolume(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("all is as it should be")
		return
	}
	os.Exit(m.Run())
}

// checkVolume tries what programs expect of a file system.
func checkVolume(dir string) error {
	for _, check := range []struct {
		name string
		run  func(string) error
	}{
		{"names and links", checkNames},
		{"locks", checkLocks},
		{"shared mappings", checkMappings},
		{"extended attributes", checkAttributes},
		{"a file over 4 GiB", checkLarge},
		{"notification of changes", checkNotification},
	} {
		sub := filepath.Join(dir, "check")
		if err := os.Mkdir(sub, 0o755); err != nil {
			return err
		}
		if err := check.run(sub); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		if err := os.RemoveAll(sub); err != nil {
			return err
		}
	}
	return nil
}

func checkNames(dir string) error {
	a, b, c, d := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c"), filepath.Join(dir, "d")
	if err := errors.Join(os.WriteFile(a, []byte("x"), 0o600), os.Rename(a, b), os.Link(b, c), os.Symlink("c", d)); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(d, &st); err != nil || st.Nlink != 2 {
		return fmt.Errorf("%d links, %v", st.Nlink, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "x", "y"), 0o755); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "z"))
}

func checkLocks(dir string) error {
	path := filepath.Join(dir, "lock")
	one, err := os.Create(path)
	if err != nil {
		return err
	}
	defer one.Close()
	two, err := os.Open(path)
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
	return unix.FcntlFlock(one.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 10})
}

func checkMappings(dir string) error {
	f, err := os.Create(filepath.Join(dir, "map"))
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

func checkAttributes(dir string) error {
	path := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), unix.Setxattr(path, "user.strata", []byte("value"), 0)); err != nil {
		return err
	}
	got := make([]byte, 16)
	n, err := unix.Getxattr(path, "user.strata", got)
	if err != nil || string(got[:n]) != "value" {
		return fmt.Errorf("read %q, %v", got[:max(n, 0)], err)
	}
	return nil
}

func checkLarge(dir string) error {
	f, err := os.Create(filepath.Join(dir, "large"))
	if err != nil {
		return err
	}
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

func checkNotification(dir string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	if n, err := unix.Read(fd, buf); err != nil || n == 0 {
		return fmt.Errorf("no notification: %v", err)
	}
	return nil
}
