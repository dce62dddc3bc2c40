// Package move moves real environments through all strata and back: what is theirs is
// still theirs, nothing is copied, and a daemon that dies in the middle leaves each at
// exactly one stratum.
package move

import (
	"encoding/json"
	"path/filepath"
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

// everyDirection is a route from a zone that takes each direction once.
var everyDirection = []string{"guest", "machine", "guest", "zone", "machine", "zone"}

// newBed is a strata that has what kernel gives it.
func newBed(t *testing.T, kernel func(testing.TB, *bed.Bed)) *bed.Bed {
	t.Helper()
	require.Root(t)
	require.Machines(t)
	require.Tool(t, qemu)
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

// move moves name, checks what the answer says of it, and returns that.
func move(t *testing.T, b *bed.Bed, name, to string) api.Move {
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
	return m.Move
}

// own is what is an environment's own at every stratum.
func own(t *testing.T, e api.Environment) string {
	t.Helper()
	e.Spec.Stratum, e.Spec.Force = "", false
	text, err := json.Marshal(map[string]any{
		"id": e.ID, "name": e.Name, "kind": e.Kind, "template": e.TemplateID, "network": e.Network, "ids": e.IDBase, "disk": e.DiskSize, "spec": e.Spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
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
	if before, after := own(l.t, l.before), own(l.t, now); now.Stratum != at || now.State != api.Running || before != after {
		l.t.Errorf("at %s: %s %s\nbefore: %s\nafter:  %s", at, now.State, now.Stratum, before, after)
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
