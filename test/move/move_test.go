// Package move moves real environments through all strata and back: what is theirs is
// still theirs, nothing is copied, and a daemon that dies in the middle leaves each at
// exactly one stratum.
package move

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// boots is how long it may take until a system is up, emulated and under load.
const boots = 3 * time.Minute

// given is what a move may add to the time of stop and start.
const given = 150 * time.Millisecond

// newBed is a strata that has what kernel gives it.
func newBed(t *testing.T, kernel func(testing.TB, *bed.Bed)) *bed.Bed {
	t.Helper()
	require.Root(t)
	require.Machines(t)
	require.Tool(t, "qemu-system-x86_64")
	b := bed.New(t)
	kernel(t, b)
	return b
}

func show(t *testing.T, b *bed.Bed, name string) api.Environment {
	t.Helper()
	var all []api.Environment
	if err := json.Unmarshal([]byte(b.Run("show", "--json", name)), &all); err != nil || len(all) != 1 {
		t.Fatalf("%d environments, %v", len(all), err)
	}
	return all[0]
}

func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	for end := time.Now().Add(require.Patience(boots)); !met(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, boots)
		}
	}
}

// file is what must not change of a private disk: which file it is.
func file(t *testing.T, b *bed.Bed, id string) (inode uint64, bytes int64) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(b.Places.State, "environments", id, "disk.ext4"), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino, st.Blocks * 512
}

// moved is how many bytes the daemon has read and written in all, with what it has waited for.
func moved(t *testing.T, b *bed.Bed) (sum int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", b.DaemonPID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key == "rchar" || key == "wchar" {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// move moves name and checks what the answer says of it.
func move(t *testing.T, b *bed.Bed, name, to string) {
	t.Helper()
	out := b.Try("move", "--json", name, to)
	if out.Status != 0 {
		t.Fatalf("move to %s: exit status %d\n%s", to, out.Status, out.Stderr)
	}
	var m api.Moved
	if err := json.Unmarshal([]byte(out.Stdout), &m); err != nil {
		t.Fatal(err)
	}
	if down, most := time.Duration(m.Move.Downtime), time.Duration(m.Move.Stop+m.Move.Start)+given; down <= 0 || down > most {
		t.Errorf("it was down for %v; want at most %v", down, most)
	}
	t.Logf("%s to %s: down for %s, stopped in %s, started in %s", name, to, m.Move.Downtime, m.Move.Stop, m.Move.Start)
}

// own is what is an environment's own at every stratum.
func own(e api.Environment) string {
	return fmt.Sprint(e.ID, e.Name, e.Network, e.IDBase, e.Spec.Ports, e.Spec.Volumes, e.Spec.Resources, e.Spec.Env, e.Spec.Restart, e.DiskSize)
}

// life is one environment, before its first move.
type life struct {
	*bed.Bed
	t       *testing.T
	name    string
	look    string // a command whose output is the same at every stratum
	before  api.Environment
	looked  string
	inode   uint64
	kernels map[string]bool
}

// same holds that all is as it was.
func (l *life) same(at string) {
	l.t.Helper()
	now := show(l.t, l.Bed, l.name)
	if now.Stratum != at || now.State != api.Running || own(now) != own(l.before) {
		l.t.Errorf("at %s: %s %s\nbefore: %s\nafter:  %s", at, now.State, now.Stratum, own(l.before), own(now))
	}
	if got := l.Run("exec", l.name, "sh", "-c", l.look); got != l.looked {
		l.t.Errorf("at %s inside was:\n%s\nis:\n%s", at, l.looked, got)
	}
	if inode, _ := file(l.t, l.Bed, now.ID); inode != l.inode {
		l.t.Errorf("at %s its disk is another file", at)
	}
	l.kernels[l.Run("exec", l.name, "uname", "-r")] = true
}

// begin remembers all of an environment.
func begin(t *testing.T, b *bed.Bed, name, look string) *life {
	t.Helper()
	l := &life{Bed: b, t: t, name: name, look: look, before: show(t, b, name), kernels: map[string]bool{}}
	l.looked = b.Run("exec", name, "sh", "-c", look)
	l.inode, _ = file(t, b, l.before.ID)
	return l
}

func TestMovingThroughAllStrata(t *testing.T) {
	b := newBed(t, bed.MachineKernel)
	volume := t.TempDir()
	for path, mode := range map[string]os.FileMode{filepath.Dir(volume): 0o755, volume: 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	b.Run("run", "-d", "--name", "web", "-p", "8080:80", "-v", volume+":/volume", "-e", "A=b", "--memory", "200M", "--disk", "1G",
		"--restart", "on-failure:3", "busybox", "sh", "-c", "while :; do hostname | nc -l -p 80; done")
	b.Run("exec", "web", "sh", "-ec", `dd if=/dev/urandom of=/data bs=1M count=64 2>/dev/null; chown 1000:50 /data
		mkdir -p /a/b; echo deep > /a/b/c; mv /a /moved; ln -s /data /link; ln /data /hard; mkfifo /pipe; rm $(which wget); chmod 700 /etc
		echo in > /volume/file; chown 1234:65533 /volume/file; sync`)
	// Every owner and mode of the whole system, and all that was written.
	l := begin(t, b, "web", `echo $A; hostname; find / -xdev ! -path '/run*' ! -path '/tmp*' ! -path '/dev*' ! -path '/proc*' ! -path '/sys*' -exec stat -c '%n %u %g %a %F' {} + | sort
		stat -c '%u:%g' /volume/file; cat /volume/file /moved/b/c; sha256sum /data; ! which wget`)
	answers := func(at string) {
		t.Helper()
		for _, address := range []string{l.before.Network.IPv4 + ":80", "127.0.0.1:8080"} {
			var got string
			until(t, address+" answers at "+at, func() bool {
				b.Host(func() { got = bed.Fetch(address) })
				return got != ""
			})
			if strings.TrimSpace(got) != "web" {
				t.Errorf("at %s, %s answers %q", at, address, got)
			}
		}
	}
	answers("zone")
	busy := hold(t, filepath.Join(volume, "busy"))
	for i, to := range []string{"guest", "machine", "guest", "zone", "machine", "zone"} { // every direction
		alone := i == 3 || i == 4
		if alone { // what a run has read and written counts as its waiting ancestors' when it ends
			b.Run("restart", "web")
		}
		l.rehearsed()
		before, kept := moved(t, b), folders(t, b)
		move(t, b, "web", to)
		did := moved(t, b) - before
		if alone {
			t.Logf("the daemon read and wrote %d KiB", did>>10)
		}
		if most := int64(4 << 20); alone && did > most {
			t.Errorf("to %s, the daemon read and wrote %d bytes; want fewer than %d", to, did, most)
		}
		notCopied(t, to, kept, folders(t, b))
		busy(to)
		if got := b.Run("exec", "web", "cat", "/volume/busy"); !strings.HasSuffix(got, to) {
			t.Errorf("at %s the file that the host writes says %q", to, got)
		}
		l.same(to)
		answers(to)
	}
	if len(l.kernels) != 3 {
		t.Errorf("it ran on the kernels %v; want the host's and two others", l.kernels)
	}
	if got := show(t, b, "web").Moves; len(got) != 6 || slices.ContainsFunc(got, func(m api.Move) bool { return m.Failed != "" || !m.Ran }) {
		t.Errorf("%+v", got)
	}
	b.Run("rm", "-f", "web")
}

func TestMovingAWholeSystem(t *testing.T) {
	b := newBed(t, bed.MachineKernel)
	b.Run("run", "-d", "--name", "deb", "--memory", "600M", "--disk", "2G", bed.Debian(t, b))
	ready := func() {
		t.Helper()
		until(t, "it is ready", func() bool { return show(t, b, "deb").Ready })
	}
	ready()
	// A folder of the template under another name, one that is new in its place, files
	// and users of its own.
	b.Run("exec", "deb", "sh", "-ec", `mv /usr/share/doc /usr/share/papers; rm -r /usr/share/zoneinfo; mkdir /usr/share/zoneinfo; echo one > /usr/share/zoneinfo/one
		useradd -u 1500 -m anna; su anna -c 'echo hers > /home/anna/hers'
		printf '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\nExecStop=/bin/sh -c "echo orderly >> /root/ends"\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/mark.service
		systemctl daemon-reload; systemctl enable --now mark 2>/dev/null; sync`)
	l := begin(t, b, "deb", `cat /proc/1/comm /home/anna/hers /usr/share/zoneinfo/one; ls /usr/share/zoneinfo; ls /usr/share/papers | sha256sum; test ! -e /usr/share/doc
		stat -c '%n %U %u %g %a' /home/anna/hers /etc/shadow /usr/bin/su /usr/share/papers; systemctl is-active mark`)
	for i, to := range []string{"guest", "machine", "zone"} {
		l.rehearsed()
		move(t, b, "deb", to)
		ready()
		l.same(to)
		if got := strings.Count(b.Run("exec", "deb", "cat", "/root/ends"), "orderly"); got != i+1 {
			t.Errorf("at %s it has ended %d times in order; want %d", to, got, i+1)
		}
	}
	b.Run("rm", "-f", "deb")
}
