package contract

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
)

func init() {
	promise(
		row{"limit-memory", limitMemory},
		row{"limit-processors", limitProcessors},
		row{"limit-processes", limitProcesses},
		row{"limit-disk", limitDisk},
		row{"oom", outOfMemory},
		row{"volume-owners", volumeOwners},
		row{"volume-semantics", volumeSemantics},
		row{"copy", copyFiles},
		row{"root-read-only", rootReadOnly},
		row{"disk-for-life", diskForLife},
	)
}

func limitMemory(t *testing.T, a at) {
	line := "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"
	expect(t, a.sh(t, line, "--memory", "64M"), 0, strconv.Itoa(64<<20))
}

func limitProcessors(t *testing.T, a at) {
	name := a.start(t, "while :; do :; done & while :; do :; done", "--cpus", "0.5")
	inside := strings.TrimSpace(a.exec(t, name, "nproc").Stdout)
	if want := strconv.Itoa(runtime.NumCPU()); a.stratum == "zone" && inside != want {
		t.Errorf("nproc says %s; want the host's %s", inside, want)
	} else if a.stratum != "zone" && inside != "1" {
		t.Errorf("nproc says %s; want 1, which is 0.5 rounded up", inside)
	}
	used := func() (int64, time.Time) {
		var s []api.Stats
		if err := json.Unmarshal([]byte(a.Run("stats", "--json", name)), &s); err != nil || len(s) != 1 {
			t.Fatalf("stats: %v, %v", s, err)
		}
		return s[0].CPUTime, s[0].Time
	}
	before, begun := used()
	time.Sleep(4 * time.Second)
	after, ended := used()
	// Two periods of the kernel's accounting (100 ms) may be counted at the ends.
	if got := float64(after-before) / float64(ended.Sub(begun)); got > 0.56 || got < 0.05 {
		t.Errorf("two loops got %.2f of a processor under a limit of 0.5", got)
	}
}

func limitProcesses(t *testing.T, a at) {
	name := a.start(t, "sleep 1000", "--pids", "32")
	out := a.exec(t, name, "for i in $(seq 40); do sleep 5 & done; echo all")
	if out.Stdout == "all\n" && !strings.Contains(out.Stderr, "fork") {
		t.Errorf("40 processes were made with a limit of 32: %q", out.Stderr)
	}
	until(t, "there is room again", 15*time.Second, func() bool { return a.exec(t, name, "true").Status == 0 })
}

func limitDisk(t *testing.T, a at) {
	bystander := a.still()
	name := a.start(t, "sleep 1000", "--disk", "64M")
	size := a.exec(t, name, "df -m / | tail -1 | awk '{print $2}'")
	if mb, err := strconv.Atoi(strings.TrimSpace(size.Stdout)); err != nil || mb < 40 || mb > 64 {
		t.Errorf("df says %q MiB; want nearly 64", size.Stdout)
	}
	out := a.exec(t, name, "dd if=/dev/zero of=/fill bs=1M count=100")
	if out.Status == 0 || !strings.Contains(out.Stderr, "No space left") {
		t.Errorf("filling the disk: status %d, %q", out.Status, out.Stderr)
	}
	expect(t, a.exec(t, bystander, "echo fine > /bystander && cat /bystander"), 0, "fine")
	expect(t, a.exec(t, name, "rm /fill && echo fine > /file && cat /file"), 0, "fine")
	a.Run("stop", "--time", "0", name)
	a.Run("set", name, "disk=128M")
	a.Run("start", name)
	expect(t, a.exec(t, name, "cat /file && dd if=/dev/zero of=/fill bs=1M count=80 2>/dev/null && rm /fill"), 0, "fine")
}

func outOfMemory(t *testing.T, a at) {
	name := a.name(t)
	expect(t, a.run("--name", name, "--memory", "32M", "busybox", "sh", "-c", "exec tail /dev/zero"), 137, "")
	if exit := a.show(t, name).Exit; exit == nil || !exit.OOM || exit.Status != 137 {
		t.Errorf("show says %+v; want out of memory", exit)
	}
	killed := a.start(t, "sleep 1000", "--memory", "32M")
	a.Run("kill", killed)
	until(t, "it ended", 10*time.Second, func() bool { return a.show(t, killed).Exit != nil })
	if exit := a.show(t, killed).Exit; exit.OOM {
		t.Error("a kill by the user is taken for out of memory")
	}
}

func volumeOwners(t *testing.T, a at) {
	dir := t.TempDir()
	os.Chmod(dir, 0o755)
	file := filepath.Join(dir, "of-1234")
	if err := os.WriteFile(file, []byte("from outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 1234, 1235); err != nil {
		t.Fatal(err)
	}
	out := a.sh(t, "stat -c %u:%g /v/of-1234; cat /v/of-1234; echo inside > /v/new; chown 4321:4322 /v/new; cat /etc/one; touch /ro/x",
		"-v", dir+":/v", "-v", dir+":/ro:ro", "-v", file+":/etc/one:ro")
	if out.Status == 0 || !strings.Contains(out.Stderr, "Read-only") {
		t.Errorf("writing a read-only volume: status %d, %q", out.Status, out.Stderr)
	}
	expect(t, out, out.Status, "1234:1235\nfrom outsidefrom outside")
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(dir, "new"), &st); err != nil || st.Uid != 4321 || st.Gid != 4322 {
		t.Errorf("the new file belongs to %d:%d, %v; want 4321:4322", st.Uid, st.Gid, err)
	}
	out = a.sh(t, "true", "-v", dir+"/missing:/v")
	if out.Status != 125 {
		t.Errorf("a volume that does not exist: status %d; want 125", out.Status)
	}
	says(t, out.Stderr, dir+"/missing")
}

func volumeSemantics(t *testing.T, a at) {
	dir := t.TempDir()
	os.Chmod(dir, 0o777)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	expect(t, a.run("--rm", "-v", dir+":/v", "-v", self+":/check:ro", "busybox", "/check", insideVolume, "/v"), 0, "all is as it should be")
}

func copyFiles(t *testing.T, a at) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(tree, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(tree, "sub", "file"), []byte("content"), 0o640)
	os.Symlink("sub/file", filepath.Join(tree, "link"))
	name := a.start(t, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	back := func(what string) {
		t.Helper()
		a.Run("cp", tree, name+":/made")
		out := filepath.Join(dir, what)
		a.Run("cp", name+":/made", out)
		data, err := os.ReadFile(filepath.Join(out, "sub", "file"))
		info, _ := os.Stat(filepath.Join(out, "sub", "file"))
		link, _ := os.Readlink(filepath.Join(out, "link"))
		if err != nil || string(data) != "content" || info.Mode().Perm() != 0o640 || link != "sub/file" {
			t.Errorf("%s: %q, %v, link %q, %v", what, data, info, link, err)
		}
		if what == "running" || !a.boots() { // a copy into what has stopped boots
			a.Run("cp", filepath.Join(tree, "sub", "file"), name+":/tmp/renamed")
		}
	}
	back("running")
	expect(t, a.exec(t, name, "cat /tmp/renamed && rm -r /made /tmp/renamed"), 0, "content")
	a.Run("stop", name)
	back("stopped")
	if env := a.show(t, name); env.State != "stopped" {
		t.Errorf("after copying, the stopped environment is %s", env.State)
	}
	a.Run("start", name)
	expect(t, a.exec(t, name, "cat /made/sub/file"), 0, "content")

	// Links that an attacker inside points at the host lead nowhere outside.
	victim := filepath.Join(dir, "victim")
	os.WriteFile(victim, []byte("host"), 0o666)
	a.exec(t, name, "mkdir -p /evil && ln -s "+dir+" /evil/dir && ln -s "+victim+" /evil/file && ln -s / /evil/root")
	a.Try("cp", filepath.Join(tree, "sub", "file"), name+":/evil/dir/victim")
	a.Try("cp", filepath.Join(tree, "sub", "file"), name+":/evil/file")
	if data, _ := os.ReadFile(victim); string(data) != "host" {
		t.Errorf("the host's file now says %q", data)
	}
	a.Try("cp", name+":/evil/file", filepath.Join(dir, "stolen"))
	// A link is copied as a link, as docker does; the bytes behind it are never read.
	if info, err := os.Lstat(filepath.Join(dir, "stolen")); err == nil && info.Mode().IsRegular() {
		t.Error("copying out followed a link to the host's file")
	}
	if out := a.Try("cp", name+":/no/such", dir); out.Status == 0 {
		t.Error("copying what is not there succeeds")
	}
}

func rootReadOnly(t *testing.T, a at) {
	out := a.sh(t, "echo yes > /scratch/file && cat /scratch/file; cat /etc/hostname >/dev/null; df -k /scratch | tail -1 | awk '{print $2}'; touch /file", "--read-only", "--tmpfs", "/scratch:size=1M")
	if out.Status == 0 || !strings.Contains(out.Stderr, "Read-only") {
		t.Errorf("writing a read-only root: status %d, %q", out.Status, out.Stderr)
	}
	expect(t, out, out.Status, "yes\n1024")
}

func diskForLife(t *testing.T, a at) {
	name := a.start(t, "trap 'exit 0' TERM; while :; do sleep 0.1; done")
	expect(t, a.exec(t, name, "echo kept > /etc/kept; chown 7:8 /etc/kept; rm /etc/passwd; mv /home /house; sync"), 0, "")
	a.Run("restart", name)
	expect(t, a.exec(t, name, "cat /etc/kept; stat -c %u:%g /etc/kept; test ! -e /etc/passwd && test -d /house && echo gone"), 0, "kept\n7:8\ngone")
	a.Run("kill", name)
	until(t, "it ended", 10*time.Second, func() bool { return a.show(t, name).State == "stopped" })
	a.Run("start", name)
	expect(t, a.exec(t, name, "cat /etc/kept"), 0, "kept")
}
