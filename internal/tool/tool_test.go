package tool_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/tool"
	"github.com/strata-project/strata/internal/tool/treat"
)

// standIn is the argument by which this test's program is in the place of a tool; one of
// standIns follows, what that needs, and the image.
const standIn = "stand-in"

// standIns end with a status that no tool succeeds with, which brings what they say into
// the error.
var standIns = map[string]func(more ...string){
	"talk": func(...string) {
		fmt.Println("the first words")
		_, _ = os.Stdout.Write(make([]byte, 64<<20))
		fmt.Fprint(os.Stderr, "\033[2J the last\nwords")
	},
	"tell": tell,
	"wait": func(...string) { time.Sleep(time.Hour) },
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == treat.Command {
		os.Exit(treat.Run(os.Args))
	}
	if len(os.Args) > 2 && os.Args[1] == standIn {
		standIns[os.Args[2]](os.Args[3:]...)
		os.Exit(4)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// self is this test's program in the place of a tool, and the job that it is given with an
// image of one byte.
func self(t *testing.T, word string, more ...string) (tool.Tool, tool.Job) {
	t.Helper()
	require.Root(t)
	program, err := os.Executable()
	must(t, err)
	image, err := os.Create(filepath.Join(t.TempDir(), "image"))
	must(t, err)
	t.Cleanup(func() { image.Close() })
	_, err = image.WriteString("x")
	must(t, err)
	return tool.Tool{Name: program, Package: "none"}, tool.Job{
		Agent: "/proc/self/exe", Image: image, Args: append(append([]string{standIn, word}, more...), image.Name()), // TestMain does what strata-agent would
	}
}

// attempts are what a tool that was taken over would try, how that ends with an image
// alone, with a folder too, and where it is not confined: "" where that is not known.
// foreign is a file that everybody may read and write.
var attempts = []struct {
	what, image, folder, free string
	try                       func(image, folder, foreign string) error
}{
	{"a file", "ENOENT", "ENOENT", "<nil>", func(_, _, foreign string) error { return opened(foreign, os.O_RDONLY) }},
	{"a file to write", "ENOENT", "ENOENT", "<nil>", func(_, _, foreign string) error { return opened(foreign, os.O_WRONLY) }},
	{"a new file", "EROFS", "EROFS", "<nil>", func(image, _, _ string) error { return opened(image+".new", os.O_CREATE|os.O_WRONLY) }},
	{"a library", "EROFS", "EROFS", "<nil>", func(string, string, string) error { return modeKept("/usr/lib") }},
	{"a device", "EROFS", "EROFS", "<nil>", func(image, _, _ string) error { return unix.Mknod(image+".sda", unix.S_IFBLK|0o600, 8<<8) }},
	{"proc", "ENOENT", "ENOENT", "<nil>", func(string, string, string) error { return opened("/proc/1/status", os.O_RDONLY) }},
	{"internet", "EPERM", "EPERM", "<nil>", func(string, string, string) error { return second(unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)) }},
	{"sockets", "EPERM", "EPERM", "<nil>", func(string, string, string) error { return second(unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)) }},
	{"a process", "EPERM", "EPERM", "<nil>", func(string, string, string) error {
		return second(os.StartProcess(os.Args[0], []string{"", treat.Command}, &os.ProcAttr{}))
	}},
	{"other processes", "ESRCH", "ESRCH", "<nil>", func(string, string, string) error { return unix.Kill(-1, 0) }},
	{"a namespace", "EPERM", "EPERM", "<nil>", func(string, string, string) error { return unix.Unshare(unix.CLONE_NEWNS) }},
	{"a user namespace", "EPERM", "EPERM", "EINVAL", func(string, string, string) error { return unix.Unshare(unix.CLONE_NEWUSER) }}, // that: it has threads
	{"a mount", "EPERM", "EPERM", "", func(string, string, string) error { return unix.Mount("none", "/", "tmpfs", 0, "") }},
	{"keys", "EPERM", "EPERM", "", func(string, string, string) error {
		return second(unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true))
	}},
	{"the file system's own", "EPERM", "EPERM", "<nil>", func(image, _, _ string) error { return flags(image) }},
	{"a file by its number", "EPERM", "EPERM", "<nil>", func(image, _, _ string) error { return byHandle(image) }},
	{"the image", "<nil>", "<nil>", "<nil>", func(image, _, _ string) error { return written(image, -1) }},
	{"a longer image", "EFBIG", "<nil>", "<nil>", func(image, _, _ string) error { return written(image, 0) }},
	{"the folder's file", "ENOENT", "<nil>", "<nil>", func(_, folder, _ string) error { return opened(folder+"/closed", os.O_RDONLY) }},
	{"its attribute", "ENOENT", "<nil>", "<nil>", func(_, folder, _ string) error {
		return second(unix.Lgetxattr(folder+"/closed", attribute, make([]byte, 8)))
	}},
	{"another file in it", "ENOENT", "EROFS", "<nil>", func(_, folder, _ string) error { return opened(folder+"/new", os.O_CREATE|os.O_WRONLY) }},
	{"a change of it", "ENOENT", "EROFS", "<nil>", func(_, folder, _ string) error { return modeKept(folder) }},
}

// attribute is one that only who may administer the system is shown.
const attribute = "trusted.overlay.opaque"

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

// flags asks by a request of the kind that stops and shrinks file systems.
func flags(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return second(unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS))
}

// byHandle opens a file past all names, as who may read everything can.
func byHandle(path string) error {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fd, err := unix.OpenByHandleAt(int(f.Fd()), h, unix.O_RDONLY)
	unix.Close(fd)
	return err
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
func tell(more ...string) {
	signal.Ignore(unix.SIGXFSZ) // of which Go makes a crash
	foreign, folder, image := more[0], more[1], more[2]
	for _, a := range attempts {
		err := a.try(image, folder, foreign)
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errors.New(unix.ErrnoName(errno))
		}
		fmt.Printf("%s: %v\n", a.what, err)
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
	fmt.Println("capabilities", sets, within, err, "no new privileges", sealed, "user", os.Getuid(), os.Getgid())
	named, _ := os.Stat(image)
	held, _ := os.NewFile(3, "").Stat()
	fmt.Println("holds the image", os.SameFile(held, named))
}

func TestAToolThatWasTakenOverHasItsImageAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	foreign, folder := filepath.Join(dir, "foreign"), filepath.Join(dir, "folder")
	must(t, os.WriteFile(foreign, nil, 0o666))
	must(t, os.Chmod(foreign, 0o666))
	must(t, os.Mkdir(folder, 0o700))
	closed := filepath.Join(folder, "closed")
	must(t, os.WriteFile(closed, nil, 0))
	must(t, os.Chown(closed, 1_900_000_007, 1_900_000_007))
	must(t, unix.Setxattr(closed, attribute, []byte("y"), 0))
	const read = 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_SYS_ADMIN
	for _, c := range []struct {
		name, folder string
		owner        int
		sets         string
	}{
		{"root's image", "", 0, "[{0 0 0} {0 0 0}] 0"},
		{"another's image", "", 1_900_000_007, "[{0 0 0} {0 0 0}] 0"},
		{"a folder", folder, 0, fmt.Sprintf("[{%d %d 0} {0 0 0}] 2", read, read)},
	} {
		t.Run(c.name, func(t *testing.T) {
			tool, job := self(t, "tell", foreign, folder)
			must(t, job.Image.Chown(c.owner, c.owner))
			job.Folder = c.folder
			var want []string
			for _, a := range attempts {
				end := a.image
				if c.folder != "" {
					end = a.folder
				}
				want = append(want, a.what+": "+end)
			}
			want = append(want, fmt.Sprintf("capabilities %s <nil> no new privileges 1 user %d %d holds the image true", c.sets, c.owner, c.owner))
			if _, err := tool.Confined(t.Context(), job); err == nil || !strings.HasSuffix(err.Error(), ": "+strings.Join(want, " ")) {
				t.Errorf("got  %v\nwant %s", err, strings.Join(want, " "))
			}
		})
	}
	// All of that is to be had where the stage is left out.
	tool, job := self(t, "tell", foreign, folder)
	_, err := tool.Run(t.Context(), job.Args...)
	for _, a := range attempts {
		if a.free != "" && !strings.Contains(fmt.Sprint(err), a.what+": "+a.free) {
			t.Errorf("without the stage: %s is not %s:\n%v", a.what, a.free, err)
		}
	}
}

func TestNoToolFillsTheDaemonsMemory(t *testing.T) {
	tool, job := self(t, "talk")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	status, err := tool.Confined(t.Context(), job)
	runtime.ReadMemStats(&after)
	if status != 4 || err == nil || !strings.HasSuffix(err.Error(), "?[2J the last words") || strings.Contains(err.Error(), "first") || len(err.Error()) > 4096 {
		t.Errorf("status %d, and it says %.200q", status, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
		t.Errorf("64 MiB of words took %d bytes", took)
	}
}

func TestAToolEndsWithItsTime(t *testing.T) {
	tool, job := self(t, "wait")
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	must(t, unix.Flock(int(job.Image.Fd()), unix.LOCK_EX))
	if _, err := tool.Confined(short, job); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	must(t, job.Image.Close())
	again, err := os.Open(job.Image.Name())
	must(t, err)
	defer again.Close()
	if err := unix.Flock(int(again.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("something holds the image yet: %v", err)
	}
}

func TestAToolIsNotSparedWhereMemoryIsShort(t *testing.T) {
	const own = "/proc/self/oom_score_adj"
	tool, job := self(t, "wait")
	before, err := os.ReadFile(own)
	must(t, err)
	require.Host(t, "oom_score_adj", string(before) == "0\n", "the test is not as ready to be chosen as usual")
	must(t, os.WriteFile(own, []byte("17"), 0)) // less than usual may not be allowed here
	defer os.WriteFile(own, before, 0)
	inTime, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { _, err := tool.Confined(inTime, job); ended <- err }()
	defer func() { cancel(); <-ended }()
	for end := time.Now().Add(require.Patience(20 * time.Second)); ; time.Sleep(time.Millisecond) {
		lists, _ := filepath.Glob("/proc/self/task/*/children")
		for _, list := range lists {
			children, _ := os.ReadFile(list)
			for _, child := range strings.Fields(string(children)) {
				command, _ := os.ReadFile("/proc/" + child + "/cmdline")
				if _, args, _ := strings.Cut(string(command), "\x00"); !strings.HasPrefix(args, standIn) {
					continue
				}
				if got, err := os.ReadFile("/proc/" + child + "/oom_score_adj"); string(got) != "0\n" {
					t.Errorf("it has %q, %v", got, err)
				}
				return
			}
		}
		if time.Now().After(end) {
			t.Fatal("no tool was started")
		}
	}
}

func TestAToolThatIsNotThereIsTold(t *testing.T) {
	_, err := tool.Tool{Name: "strata-nonesuch", Package: "nonesuch-utils"}.Run(t.Context())
	var f *fault.Error
	if !errors.As(err, &f) || f.Kind != fault.Unable || !strings.Contains(f.Hint, "nonesuch-utils") {
		t.Errorf("%v", err)
	}
}
