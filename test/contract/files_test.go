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
		row{name: "limit-memory", test: limitMemory},
		row{name: "limit-processors", test: limitProcessors},
		row{name: "limit-processes", test: limitProcesses},
		row{name: "limit-disk", life: &chapter{running: limitDisk, stopped: largerDisk, again: largerDiskIsThere}},
		row{name: "oom", test: outOfMemory, life: &chapter{killed: noOutOfMemory}},
		row{name: "volume-owners", test: volumeOwners},
		row{name: "volume-semantics", test: volumeSemantics},
		row{name: "copy", life: copies()},
		row{name: "commit", life: &chapter{running: change, stopped: commit}},
		row{name: "root-read-only", test: rootReadOnly},
		row{name: "disk-for-life", life: &chapter{running: writeDisk, again: diskIsKept, last: diskIsKept}},
	)
}

func limitMemory(t *testing.T, a at) {
	if got := a.shared.told(a).part["memory"]; got != strconv.Itoa(64<<20) {
		t.Errorf("with 64M the group's file says %q", got)
	}
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
	if got := float64(after-before) / float64(ended.Sub(begun)); got > 0.56 || got <= 0 {
		t.Errorf("two loops got %.2f of a processor under a limit of 0.5", got)
	}
}

func limitProcesses(t *testing.T, a at) {
	name := a.shared.tight.of(t, a)
	out := a.exec(t, name, "for i in $(seq 40); do sleep 5 & done; echo all")
	if out.Stdout == "all\n" && !strings.Contains(out.Stderr, "fork") {
		t.Errorf("40 processes were made with a limit of 32: %q", out.Stderr)
	}
	until(t, "there is room again", 15*time.Second, func() bool { return a.exec(t, name, "true").Status == 0 })
}

// limitDisk fills a disk of 64 MiB.
func limitDisk(t looker, a at, name string) {
	bystander := a.still()
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
}

func largerDisk(_ looker, a at, name string) { a.Run("set", name, "disk=128M") }

func largerDiskIsThere(t looker, a at, name string) {
	expect(t, a.exec(t, name, "cat /file && dd if=/dev/zero of=/fill bs=1M count=80 2>/dev/null && rm /fill"), 0, "fine")
}

func outOfMemory(t *testing.T, a at) {
	name := a.name(t)
	expect(t, a.run("--name", name, "--memory", "32M", "busybox", "sh", "-c", "exec tail /dev/zero"), 137, "")
	if exit := a.show(t, name).Exit; exit == nil || !exit.OOM || exit.Status != 137 {
		t.Errorf("show says %+v; want out of memory", exit)
	}
}

func noOutOfMemory(t looker, a at, name string) {
	if exit := a.show(t, name).Exit; exit == nil || exit.Status != 137 || exit.OOM {
		t.Errorf("of a kill by the user show says %+v", exit)
	}
}

func volumeOwners(t *testing.T, a at) {
	told := a.shared.told(a)
	if got := told.part["owners"]; got != "1234:1235\nfrom outsidefrom outside" {
		t.Errorf("it says %q", got)
	}
	if got := told.part["read-only"]; !strings.Contains(got, "Read-only") || strings.Contains(got, "touched") {
		t.Errorf("writing a read-only volume: %q", got)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(told.dir, "new"), &st); err != nil || st.Uid != 4321 || st.Gid != 4322 {
		t.Errorf("the new file belongs to %d:%d, %v; want 4321:4322", st.Uid, st.Gid, err)
	}
	missing := filepath.Join(told.dir, "missing")
	out := a.sh(t, "true", "-v", missing+":/v")
	if out.Status != 125 {
		t.Errorf("a volume that does not exist: status %d; want 125", out.Status)
	}
	says(t, out.Stderr, missing)
}

func volumeSemantics(t *testing.T, a at) {
	if got := a.shared.told(a).part["semantics"]; got != "all is as it should be" {
		t.Error(got)
	}
}

// copies brings a tree in and out of what runs, of what has stopped, and past hostile links.
func copies() *chapter {
	return &chapter{
		running: func(t looker, a at, name string) {
			copyBack(t, a, name, "running")
			expect(t, a.exec(t, name, "cat /tmp/renamed && rm -r /made /tmp/renamed"), 0, "content")
		},
		stopped: func(t looker, a at, name string) {
			copyBack(t, a, name, "stopped")
			if env := a.show(t, name); env.State != "stopped" {
				t.Errorf("after copying, the stopped environment is %s", env.State)
			}
		},
		again: func(t looker, a at, name string) {
			expect(t, a.exec(t, name, "cat /made/sub/file"), 0, "content")
			copyPastLinks(t, a, name)
		},
	}
}

func change(t looker, a at, name string) {
	expect(t, a.exec(t, name, "rm /bin/arch && mkdir /changed && echo it > /changed/file && chown 7:8 /changed/file && ln /changed/file /changed/same"), 0, "")
}

// commit makes a template of what has stopped, and looks at a zone of it.
func commit(t looker, a at, name string) {
	template := "of-" + a.stratum
	expect(t, a.Try("commit", name, template), 0, template+":latest")
	const tell = "cat /changed/same; stat -c %u:%g:%h /changed/file; ls /bin/arch 2>/dev/null; test -c /dev/null && grep -c localhost /etc/hosts"
	expect(t, a.Try("run", "--rm", "--stratum", "zone", template, "sh", "-c", tell), 0, "it\n7:8:2\n2")
	var made, own []api.Template
	for ref, into := range map[string]*[]api.Template{template: &made, "busybox": &own} {
		if err := json.Unmarshal([]byte(a.Run("template", "show", "--json", ref)), into); err != nil {
			t.Fatalf("template show: %v", err)
		}
	}
	if len(made[0].Layers) != len(own[0].Layers)+1 {
		t.Errorf("it has %d layers over %d", len(made[0].Layers), len(own[0].Layers))
	}
}

// copyBack brings a tree in and out again, and a file in by another name.
func copyBack(t looker, a at, name, what string) {
	t.Helper()
	dir := a.t.TempDir()
	tree := filepath.Join(dir, "tree")
	file := filepath.Join(tree, "sub", "file")
	os.MkdirAll(filepath.Dir(file), 0o755)
	os.WriteFile(file, []byte("content"), 0o640)
	os.Symlink("sub/file", filepath.Join(tree, "link"))
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
		a.Run("cp", file, name+":/tmp/renamed")
	}
}

// copyPastLinks follows links that an attacker inside points at the host: they lead
// nowhere outside.
func copyPastLinks(t looker, a at, name string) {
	dir := a.t.TempDir()
	victim, file := filepath.Join(dir, "victim"), filepath.Join(dir, "file")
	os.WriteFile(victim, []byte("host"), 0o666)
	os.WriteFile(file, []byte("content"), 0o640)
	a.exec(t, name, "mkdir -p /evil && ln -s "+dir+" /evil/dir && ln -s "+victim+" /evil/file && ln -s / /evil/root")
	a.Try("cp", file, name+":/evil/dir/victim")
	a.Try("cp", file, name+":/evil/file")
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
	plain := a.shared.plain(a)
	if got := plain.part["read-only"]; !strings.Contains(got, "Read-only") || strings.Contains(got, "touched") {
		t.Errorf("writing a read-only root: %q", got)
	}
	if got := plain.part["scratch"]; got != "yes\n1024" {
		t.Errorf("the tmpfs says %q", got)
	}
}

func writeDisk(t looker, a at, name string) {
	expect(t, a.exec(t, name, "echo kept > /etc/kept; chown 7:8 /etc/kept; rm /etc/passwd; mv /home /house; sync"), 0, "")
}

func diskIsKept(t looker, a at, name string) {
	expect(t, a.exec(t, name, "cat /etc/kept; stat -c %u:%g /etc/kept; test ! -e /etc/passwd && test -d /house && echo gone"), 0, "kept\n7:8\ngone")
}
