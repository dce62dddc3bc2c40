package move

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-project/strata/test/bed"
)

// folders is how many bytes each folder of the state takes on the host's disk.
func folders(t *testing.T, b *bed.Bed) map[string]int64 {
	t.Helper()
	sizes := map[string]int64{}
	err := filepath.WalkDir(b.Places.State, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // a file that was replaced meanwhile
			}
			return err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(path, b.Places.State+"/"), "/")
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err == nil {
			sizes[name] += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sizes
}

// ownFolders are those in which a copy of a disk or of a template would lie.
var ownFolders = []string{"environments", "templates"}

// started is what the start of an app may write: the records, the journal of its file system.
// A disk and a template that are moved here have more than that in them, so that no copy
// goes unseen.
const started = 2 << 20

// traffic is what processes have had read and written, in bytes. Source: proc_pid_io(5).
type traffic struct {
	read, written   int64 // by calls, also of sockets and of what is in memory
	fetched, stored int64 // from the block devices below, and for them
}

// counted is the traffic of a process and of all below it. What has ended counts as its
// waiting parent's, so that the end of a run changes nothing of the daemon's sum.
func counted(t *testing.T, top int) (sum traffic) {
	t.Helper()
	below := map[string][]string{}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		pid := filepath.Base(path)
		_, parent := status(pid)
		below[parent] = append(below[parent], pid)
	}
	fields := map[string]*int64{"rchar": &sum.read, "wchar": &sum.written, "read_bytes": &sum.fetched, "write_bytes": &sum.stored}
	for todo := []string{strconv.Itoa(top)}; len(todo) > 0; {
		pid := todo[0]
		todo = append(todo[1:], below[pid]...)
		text, err := os.ReadFile(filepath.Join("/proc", pid, "io"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ESRCH) { // it may have ended
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && fields[key] != nil {
				*fields[key] += n
			}
		}
	}
	return sum
}

// TestWhatIsCopiedIsCounted, also where another process has done it that is gone.
func TestWhatIsCopiedIsCounted(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.WriteFile(source, make([]byte, started+1), 0o600); err != nil {
		t.Fatal(err)
	}
	before := counted(t, os.Getpid())
	if out, err := exec.Command("cp", "--reflink=never", "--sparse=never", source, source+"2").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if more := counted(t, os.Getpid()).written - before.written; more <= started {
		t.Errorf("of a copy of %d bytes, %d were counted", started+1, more)
	}
}

// stock is what there was before a move.
type stock struct {
	traffic traffic
	folders map[string]int64
}

func take(t *testing.T, b *bed.Bed) stock {
	t.Helper()
	return stock{counted(t, b.DaemonPID()), folders(t, b)}
}

// notCopied holds that a move has had nothing written, and made nothing in the folders of
// disks and templates, but the most bytes that a start may write, and says what it was.
func notCopied(t *testing.T, b *bed.Bed, to string, before stock, most int64) {
	t.Helper()
	after := take(t, b)
	read, written := after.traffic.read-before.traffic.read, after.traffic.written-before.traffic.written
	fetched, stored := after.traffic.fetched-before.traffic.fetched, after.traffic.stored-before.traffic.stored
	t.Logf("to %s, all processes of strata: read %d KiB, %d from disks, wrote %d KiB, %d to disks", to, read>>10, fetched>>10, written>>10, stored>>10)
	if read <= 0 || written <= 0 {
		t.Errorf("to %s, nothing was counted", to)
	}
	if max(written, stored) > most {
		t.Errorf("to %s, %d bytes were written, %d to disks: something was copied", to, written, stored)
	}
	for _, name := range ownFolders {
		more := after.folders[name] - before.folders[name]
		t.Logf("to %s, %s takes %d KiB more", to, name, more>>10)
		if more > most {
			t.Errorf("to %s, %s grew by %d bytes: something was copied", to, name, more)
		}
		delete(after.folders, name)
	}
	for name, size := range after.folders {
		if more := size - before.folders[name]; more > 0 {
			t.Logf("to %s, made for all of that stratum: %s, %d KiB", to, name, more>>10)
		}
	}
}

// hold has this process, on the host, keep a file of a volume open and locked. What it
// returns writes words to it.
func hold(t *testing.T, path string) func(words string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	return func(words string) {
		t.Helper()
		if _, err := f.WriteString(words); err != nil {
			t.Errorf("the host cannot write to its file any more: %v", err)
		}
	}
}

// rehearsed has every other stratum tried without a move, and holds that nothing changes.
func (l *life) rehearsed() {
	l.t.Helper()
	before := show(l.t, l.Bed, l.name)
	for _, to := range []string{"zone", "guest", "machine"} {
		out := l.Try("move", "--dry-run", l.name, to)
		if out.Status != 0 && to != before.Stratum || out.Status == 0 && to == before.Stratum {
			l.t.Errorf("a dry run from %s to %s: exit status %d\n%s", before.Stratum, to, out.Status, out.Stderr)
		}
	}
	if after := show(l.t, l.Bed, l.name); after.PID != before.PID || after.Stratum != before.Stratum || len(after.Moves) != len(before.Moves) {
		l.t.Errorf("after dry runs it is at %s, process %d; before at %s, %d", after.Stratum, after.PID, before.Stratum, before.PID)
	}
}
