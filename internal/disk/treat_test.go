package disk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/disk"
	"github.com/strata-project/strata/internal/disk/treat"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/unit"
)

// standIns are what this test's program does in the place of a tool: a word and, where
// there is one, what comes after it are at the end of its file. A status that no tool
// succeeds with brings what it says into the error.
var standIns = map[string]func(more string) int{
	"talk": func(string) int {
		fmt.Println("the first words")
		_, _ = os.Stdout.Write(make([]byte, 64<<20))
		fmt.Fprint(os.Stderr, "\033[2J the last\nwords")
		return 4
	},
	"tell": func(more string) int { fmt.Print(tell(more)); return 4 },
	"wait": func(string) int { time.Sleep(time.Hour); return 4 },
}

const standInMark = "\nstrata-test: "

// standIn puts this test's program in the place of a tool, and returns where that is.
func standIn(t *testing.T, name, word, more string) (path string) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	dir := t.TempDir()
	path = filepath.Join(dir, name)
	must(t, os.WriteFile(path, append(self, standInMark+word+" "+more...), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return path
}

// standingIn returns what this process does in the place of a tool, nil where it is none.
func standingIn() func() int {
	if base := filepath.Base(os.Args[0]); base != "e2fsck" && base != "resize2fs" {
		return nil
	}
	self, err := os.ReadFile(os.Args[0])
	at := bytes.LastIndex(self, []byte(standInMark))
	if err != nil || at < 0 {
		return func() int { fmt.Println("a stand-in without a word:", err); return 4 }
	}
	word, more, _ := strings.Cut(string(self[at+len(standInMark):]), " ")
	return func() int { return standIns[word](more) }
}

// attempts are what a tool that was taken over would try, how that ends, and how where it
// is not confined: "" where that is not known. foreign is a file that everybody may read
// and write.
var attempts = []struct {
	what, confined, free string
	try                  func(image, foreign string) error
}{
	{"a file", "ENOENT", "<nil>", func(_, foreign string) error { return opened(foreign, os.O_RDONLY) }},
	{"a file to write", "ENOENT", "<nil>", func(_, foreign string) error { return opened(foreign, os.O_WRONLY) }},
	{"a new file", "EROFS", "<nil>", func(image, _ string) error { return opened(image+".new", os.O_CREATE|os.O_WRONLY) }},
	{"a library", "EROFS", "<nil>", func(string, string) error { return modeKept("/usr/lib") }},
	{"a device", "EROFS", "<nil>", func(image, _ string) error { return unix.Mknod(image+".sda", unix.S_IFBLK|0o600, 8<<8) }},
	{"proc", "ENOENT", "<nil>", func(string, string) error { return opened("/proc/1/status", os.O_RDONLY) }},
	{"internet", "EPERM", "<nil>", func(string, string) error { return second(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) }},
	{"sockets", "EPERM", "<nil>", func(string, string) error { return second(unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }},
	{"a process", "EPERM", "<nil>", func(string, string) error {
		return second(os.StartProcess(os.Args[0], []string{"", treat.Command}, &os.ProcAttr{}))
	}},
	{"other processes", "ESRCH", "<nil>", func(string, string) error { return unix.Kill(-1, 0) }},
	{"a namespace", "EPERM", "<nil>", func(string, string) error { return unix.Unshare(unix.CLONE_NEWNS) }},
	{"a user namespace", "EPERM", "EINVAL", func(string, string) error { return unix.Unshare(unix.CLONE_NEWUSER) }}, // that: it has threads
	{"keys", "EPERM", "", func(string, string) error { return second(unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)) }},
	{"the image", "<nil>", "<nil>", func(image, _ string) error { return written(image, -1) }},
	{"a longer image", "EFBIG", "<nil>", func(image, _ string) error { return written(image, 0) }},
}

func opened(path string, flags int) error {
	f, err := os.OpenFile(path, flags, 0o600)
	f.Close()
	return err
}

// modeKept gives a folder the mode that it has.
func modeKept(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Chmod(path, info.Mode())
}

func second[T any](_ T, err error) error { return err }

// written writes one byte so far from the image's end.
func written(image string, from int64) error {
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := f.Seek(from, io.SeekEnd)
	if err == nil {
		_, err = f.WriteAt([]byte("x"), end)
	}
	return err
}

// tell tries all, and says how it ended and what this process is.
func tell(foreign string) string {
	signal.Ignore(unix.SIGXFSZ) // of which Go makes a crash
	image := os.Args[len(os.Args)-1]
	all := &strings.Builder{}
	for _, a := range attempts {
		err := a.try(image, foreign)
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errors.New(unix.ErrnoName(errno))
		}
		fmt.Fprintf(all, "%s: %v\n", a.what, err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&head, &sets[0])
	within := 0
	for c := range uintptr(64) {
		if has, _, _ := unix.Syscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, c, 0); has == 1 {
			within++
		}
	}
	sealed, _, _ := unix.Syscall(unix.SYS_PRCTL, unix.PR_GET_NO_NEW_PRIVS, 0, 0)
	fmt.Fprintln(all, "capabilities", sets, within, err, "no new privileges", sealed, "user", os.Getuid(), os.Getgid())
	named, _ := os.Stat(image)
	held, _ := os.NewFile(3, "").Stat()
	fmt.Fprintln(all, "holds the image", os.SameFile(held, named))
	return all.String()
}

// told is what is to be told: the attempts as they end, and then what follows.
func told(end func(i int) string, more string) string {
	var all []string
	for i, a := range attempts {
		all = append(all, a.what+": "+end(i))
	}
	return strings.Join(all, " ") + " " + more
}

func TestAToolThatWasTakenOverHasItsImageAndNothingElse(t *testing.T) {
	p, path := made(t, 64*unit.MiB)
	foreign := filepath.Join(t.TempDir(), "foreign")
	must(t, os.WriteFile(foreign, nil, 0o666))
	must(t, os.Chmod(foreign, 0o666))
	for _, name := range []string{"e2fsck", "resize2fs"} {
		for _, owner := range []int{0, 1_900_000_007} {
			t.Run(fmt.Sprintf("%s of %d", name, owner), func(t *testing.T) {
				must(t, os.Chown(path, owner, owner))
				standIn(t, name, "tell", foreign)
				err := p.Grow(ctx, path, 64*unit.MiB)
				want := told(func(i int) string { return attempts[i].confined }, fmt.Sprintf("capabilities [{0 0 0} {0 0 0}] 0 <nil> no new privileges 1 user %d %d holds the image true", owner, owner))
				if err == nil || !strings.HasSuffix(err.Error(), want) {
					t.Errorf("got  %v\nwant %s", err, want)
				}
			})
		}
	}
	// All of that is to be had where the stage is left out.
	free := exec.Command(standIn(t, "e2fsck", "tell", foreign), path)
	out, _ := free.Output()
	for _, a := range attempts {
		if a.free != "" && !strings.Contains(string(out), a.what+": "+a.free+"\n") {
			t.Errorf("without the stage: %s is not %s:\n%s", a.what, a.free, out)
		}
	}
}

func TestAToolThatCannotBeConfinedIsNotRun(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, dir, disk.Options{})
	path := filepath.Join(dir, "disk.ext4")
	must(t, p.Create(ctx, path, disk.FloorSize))
	must(t, os.WriteFile(filepath.Join(dir, "e2fsck"), []byte("#!/nonesuch\n"), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	// Its status must not be taken for one of e2fsck's, of which 1 is good.
	if err := p.Grow(ctx, path, unit.GiB); err == nil || fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "confine e2fsck") {
		t.Errorf("%v", err)
	}
	if _, size, err := disk.Usage(path); err != nil || size != int64(disk.FloorSize) {
		t.Errorf("the image has %d bytes, %v", size, err)
	}
}

func TestADamagedDiskIsMendedAndGrown(t *testing.T) {
	debugfs := require.Tool(t, "debugfs")
	p, path := made(t, 64*unit.MiB)
	for _, command := range []string{"set_block_group 0 free_blocks_count 7", "set_block_group 0 checksum calc", "set_super_value free_blocks_count 9"} {
		if out, err := exec.Command(debugfs, "-w", "-R", command, path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	must(t, p.Grow(ctx, path, 300*unit.MiB))
	kept(t, p, path)
	if _, size, err := disk.Usage(path); err != nil || size != int64(300*unit.MiB) {
		t.Errorf("%d bytes, %v", size, err)
	}
}

func TestAToolSpeaksOfTheImageByItsName(t *testing.T) {
	p, path := made(t, disk.FloorSize)
	must(t, os.WriteFile(path, make([]byte, disk.FloorSize), 0o600))
	err := p.Grow(ctx, path, unit.GiB)
	if said := fmt.Sprint(err); !strings.Contains(said, "e2fsck: exit status 8: ") || strings.Count(said, path) < 2 || strings.Contains(said, "/dev/null") {
		t.Error(said)
	}
}

// waiting is a disk that is to be mended, by a tool that does not end.
func waiting(t *testing.T) (p *disk.Pool, path string) {
	t.Helper()
	p, path = made(t, disk.FloorSize)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{3}, 1024+0x3A) // its superblock tells of errors
	must(t, err)
	must(t, f.Close())
	standIn(t, "e2fsck", "wait", "")
	return p, path
}

func TestAToolEndsWithItsTime(t *testing.T) {
	p, path := waiting(t)
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := p.Hold(short, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	held, err := disk.Hold(path) // so nothing that held it is left
	must(t, err)
	must(t, held.Close())
}

func TestAToolIsNotSparedWhereMemoryIsShort(t *testing.T) {
	const own = "/proc/self/oom_score_adj"
	p, path := waiting(t)
	before, err := os.ReadFile(own)
	must(t, err)
	require.Host(t, "oom_score_adj", string(before) == "0\n", "the test is not as ready to be chosen as usual")
	must(t, os.WriteFile(own, []byte("17"), 0)) // less than usual may not be allowed here
	defer os.WriteFile(own, before, 0)
	inTime, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { _, err := p.Hold(inTime, path); ended <- err }()
	defer func() { cancel(); <-ended }()
	for end := time.Now().Add(require.Patience(20 * time.Second)); ; time.Sleep(time.Millisecond) {
		lists, _ := filepath.Glob("/proc/self/task/*/children")
		for _, list := range lists {
			children, _ := os.ReadFile(list)
			for _, child := range strings.Fields(string(children)) {
				command, _ := os.ReadFile("/proc/" + child + "/cmdline")
				if name, _, _ := strings.Cut(string(command), "\x00"); filepath.Base(name) != "e2fsck" {
					continue
				}
				if got, err := os.ReadFile("/proc/" + child + "/oom_score_adj"); string(got) != "0\n" {
					t.Errorf("it has %q, %v", got, err)
				}
				return
			}
		}
		if time.Now().After(end) {
			t.Fatal("no e2fsck was started")
		}
	}
}
