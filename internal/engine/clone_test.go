package engine_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/oom"
	"github.com/strata-project/strata/internal/stratum"
)

func (l *lab) diskOf(id string) string {
	return filepath.Join(l.dir, "state", "environments", id, "disk.ext4")
}

func (l *lab) machineID(id string) string {
	for _, f := range l.host.Run(id).Plan.Files {
		if f.Path == "/etc/machine-id" {
			return string(f.Data)
		}
	}
	return ""
}

func TestACloneHasTheDiskAndNothingElseOfItsSource(t *testing.T) {
	l := newLab(t)
	labels := map[string]string{"own": "1", api.ProjectLabel: "shop", api.DependsOnLabel: "db", api.StartLabel: "once"}
	from := l.create(api.Spec{Name: "one", Template: "debian", Env: []string{"A=b"}, Labels: labels})
	l.must(os.WriteFile(l.diskOf(from.ID), []byte("written"), 0o600))
	l.pool.Cost = 3 << 20
	_, err := l.Clone(t.Context(), "one", api.Clone{Name: "two"})
	kindIs(t, err, fault.Unable, "copy of 3")
	if _, err := l.Get(t.Context(), "two"); !fault.Is(err, fault.Missing) {
		t.Errorf("it was made: %v", err)
	}
	two, err := l.Clone(t.Context(), "one", api.Clone{Name: "two", Copy: true})
	l.must(err)
	l.pool.Cost = 0
	three, err := l.Clone(t.Context(), "one", api.Clone{})
	l.must(err)
	for _, made := range []api.Environment{two, three} {
		if made.ID == from.ID || made.Network.IPv4 == from.Network.IPv4 || made.IDBase == from.IDBase || made.State != api.Created || made.TemplateID != from.TemplateID {
			t.Errorf("of %+v it made %+v", from, made)
		}
		if data, err := os.ReadFile(l.diskOf(made.ID)); string(data) != "written" {
			t.Errorf("its disk has %q, %v", data, err)
		}
		l.must(l.Start(t.Context(), made.Name, nil))
	}
	if len(two.Spec.Labels) != 1 || two.Spec.Labels["own"] != "1" || len(l.get("one").Spec.Labels) != 4 {
		t.Errorf("its labels are %v, and its source's %v", two.Spec.Labels, l.get("one").Spec.Labels)
	}
	if two.Name != "two" || three.Name == "" || two.Network.IPv4 == three.Network.IPv4 || strings.Join(two.Spec.Env, " ") != "A=b" {
		t.Errorf("%+v and %+v", two, three)
	}
	first, second := l.machineID(two.ID), l.machineID(three.ID)
	if len(first) != 33 || len(second) != 33 || first == second {
		t.Errorf("machine ids %q and %q", first, second)
	}
	l.must(l.Start(t.Context(), "one", nil))
	if own := l.machineID(from.ID); own != "" {
		t.Errorf("the source was given machine id %q", own)
	}
	l.must(l.Stop(t.Context(), "two", engine.StopOptions{}))
	l.must(l.Start(t.Context(), "two", nil))
	if again := l.machineID(two.ID); again != first {
		t.Errorf("machine id %q has become %q", first, again)
	}
	l.restart()
	if got := l.get("two"); got.Network != two.Network {
		t.Errorf("another daemon gives it %+v", got.Network)
	}
}

func TestWhatCannotBeCloned(t *testing.T) {
	l := newLab(t)
	l.run(api.Spec{Name: "web"})
	l.create(api.Spec{Name: "still"})
	for what, c := range map[string]struct {
		ref, name string
		kind      fault.Kind
		says      string
	}{
		"what runs":           {"web", "other", fault.Conflict, "running"},
		"what is not there":   {"no-such", "other", fault.Missing, "no-such"},
		"to a name not given": {"still", "web", fault.Conflict, "taken"},
		"to no name":          {"still", "A_B", fault.Invalid, "name"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := l.Clone(t.Context(), c.ref, api.Clone{Name: c.name})
			kindIs(t, err, c.kind, c.says)
		})
	}
	l.must(l.Suspend(t.Context(), "web"))
	_, err := l.Clone(t.Context(), "web", api.Clone{})
	kindIs(t, err, fault.Conflict, "suspended")
	// A clone that fails leaves nothing of it.
	l.must(os.Remove(l.diskOf(l.get("still").ID)))
	if _, err := l.Clone(t.Context(), "still", api.Clone{Name: "other"}); err == nil {
		t.Error("a disk that is not there was cloned")
	}
	l.must(l.Remove(t.Context(), "web", true))
	l.must(l.Remove(t.Context(), "still", true))
	l.until("nothing is left", l.nothingLeft)
}

func TestChangesOfADiskAreForgotten(t *testing.T) {
	l := newLab(t)
	id := l.run(api.Spec{Name: "web", UndoDisk: true}).ID
	own := l.host.Run(id).Plan.Disk
	if own == l.diskOf(id) {
		t.Fatal("it runs on the disk itself")
	}
	write := func() { l.t.Helper(); l.must(os.WriteFile(own, []byte("changed"), 0o600)) }
	read := func(want string) {
		t.Helper()
		if data, err := os.ReadFile(own); string(data) != want {
			t.Errorf("the run's disk has %q, %v; want %q", data, err, want)
		}
	}
	read("disk")
	write()
	l.restart() // a daemon's restart is no end of a run
	read("changed")
	l.must(l.Suspend(t.Context(), "web")) // nor is this
	read("changed")
	l.must(l.Resume(t.Context(), "web"))
	if l.host.Run(id).Plan.Disk != own {
		t.Error("it goes on with another disk")
	}
	read("changed")
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	if _, err := os.Stat(own); err == nil {
		t.Error("what was changed is still there after its end")
	}
	l.must(l.Start(t.Context(), "web", nil))
	read("disk")
	write()
	l.must(l.Close(t.Context()))
	l.host.Reboot() // with nobody to clean
	l.open()
	l.must(l.Start(t.Context(), "web", nil))
	read("disk")
	if data, _ := os.ReadFile(l.diskOf(id)); string(data) != "disk" {
		t.Errorf("the disk itself has %q", data)
	}
	l.must(l.Stop(t.Context(), "web", engine.StopOptions{}))
	l.host.Fail = func(p stratum.Plan) error { return fault.Unablef("no") }
	if l.Start(t.Context(), "web", nil) == nil {
		t.Error("it started")
	}
	l.must(l.Remove(t.Context(), "web", false))
	l.until("nothing is left", l.nothingLeft)
}

// TestACloneTakesNothingButWhatFirmwareAndTPMKeep: QEMU and swtpm write these files, and
// may have been taken over.
func TestACloneTakesNothingButWhatFirmwareAndTPMKeep(t *testing.T) {
	for name, c := range map[string]struct {
		make   func(vars, tpm string) error
		copied []string // below the clone's folder
		fails  string
	}{
		"what is usual": {func(vars, tpm string) error {
			return errors.Join(os.WriteFile(vars, []byte("secret"), 0o600), os.WriteFile(filepath.Join(tpm, "tpm2-00.permall"), []byte("secret"), 0o600), os.WriteFile(filepath.Join(tpm, ".lock"), nil, 0o600))
		}, []string{"uefi-vars", "tpm/tpm2-00.permall", "tpm/.lock"}, ""},
		"an empty folder":       {func(string, string) error { return nil }, nil, ""},
		"a link in the folder":  {func(_, tpm string) error { return os.Symlink("/etc/passwd", filepath.Join(tpm, "tpm2-00.permall")) }, nil, ""},
		"variables by a link":   {func(vars, _ string) error { return os.Symlink("/etc/passwd", vars) }, nil, "uefi-vars"},
		"variables by a pipe":   {func(vars, _ string) error { return syscall.Mkfifo(vars, 0o600) }, nil, "not what firmware"},
		"endless variables":     {func(vars, _ string) error { return sparse(vars, 8<<40) }, nil, "not what firmware"},
		"a file without end":    {func(_, tpm string) error { return sparse(filepath.Join(tpm, "tpm2-00.permall"), 8<<40) }, nil, "not what firmware"},
		"more files than three": {func(_, tpm string) error { return many(tpm, 1000) }, nil, "not what firmware"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			from := b.run(api.Spec{Name: "one", Stratum: "machine"})
			b.must(b.Stop(t.Context(), "one", engine.StopOptions{}))
			of := func(id, name string) string { return filepath.Join(filepath.Dir(b.diskOf(id)), name) }
			b.must(errors.Join(os.MkdirAll(of(from.ID, "tpm"), 0o700), c.make(of(from.ID, "uefi-vars"), of(from.ID, "tpm"))))
			two, err := b.Clone(t.Context(), "one", api.Clone{Name: "two"})
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("got %v", err)
				}
				return
			}
			b.must(err)
			for _, name := range []string{"uefi-vars", "tpm/tpm2-00.permall", "tpm/.lock"} {
				text, err := os.ReadFile(of(two.ID, name))
				if was, _ := os.ReadFile(of(from.ID, name)); slices.Contains(c.copied, name) && (err != nil || string(text) != string(was)) || !slices.Contains(c.copied, name) && err == nil {
					t.Errorf("%s: %q, %v", name, text, err)
				}
			}
		})
	}
}

// sparse makes a file of a size that takes no room.
func sparse(path string, size int64) error {
	return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size))
}

func many(dir string, n int) error {
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func TestAClonesLastKillIsNotItsSources(t *testing.T) {
	l := prepared(t)
	kills := l.watched()
	id := l.run(api.Spec{Name: "one"}).ID
	kills <- oom.Kill{ID: id, Process: "python3", PID: 1 << 30, Short: oom.Limit}
	l.until("the kill is noted", func() bool { return l.get("one").OOM != nil })
	l.must(l.Stop(t.Context(), "one", engine.StopOptions{}))
	two, err := l.Clone(t.Context(), "one", api.Clone{Name: "two"})
	l.must(err)
	if two.OOM != nil || l.get("one").OOM == nil {
		t.Errorf("the clone has %+v, and its source %+v", two.OOM, l.get("one").OOM)
	}
}

// hosts is a driver at stratum machine that makes nothing for foreign systems but the CD
// with the agent.
type hosts struct {
	*enginetest.Driver
	stratum.Hoster
}

func (hosts) Stratum() string { return stratum.Machine }

func (hosts) MakeDisk(context.Context, stratum.Plan, func(done, total int64)) (string, error) {
	return "", nil
}

func (hosts) Pack(path string) (command string, err error) {
	return "install", os.WriteFile(path, []byte("agent"), 0o600)
}

func TestACloneNamesNoCDOfItsSources(t *testing.T) {
	l := prepared(t)
	l.driver = hosts{Driver: enginetest.NewDriver(l.host)}
	l.open()
	own := filepath.Join(t.TempDir(), "own.iso")
	l.must(os.WriteFile(own, nil, 0o600))
	for name, agent := range map[string]bool{"one": true, "other": false} {
		_, err := l.Create(t.Context(), api.Spec{Name: name, Foreign: &api.Foreign{ISO: own, OS: "linux"}})
		l.must(err)
		if agent {
			_, err = l.InstallAgent(t.Context(), name, true)
			l.must(err)
		}
		had := l.get(name).Spec.Foreign.ISO
		clone, err := l.Clone(t.Context(), name, api.Clone{Name: name + "-clone"})
		l.must(err)
		want := own
		if agent {
			want = ""
		}
		if got := clone.Spec.Foreign.ISO; got != want || (had == own) == agent {
			t.Errorf("%s has %q in its drive, and its clone %q; want %q", name, had, got, want)
		}
		if now := l.get(name).Spec.Foreign.ISO; now != had {
			t.Errorf("%s has %q in its drive after it was cloned", name, now)
		}
		l.must(l.Remove(t.Context(), name, false))
		l.must(l.Start(t.Context(), clone.Name, nil))
		if got := l.host.Run(clone.ID).Plan.Foreign.ISO; got != want {
			t.Errorf("the clone of %s starts with %q", name, got)
		}
	}
}

// TestACloneOfWhatWasInstalledDoesNotBootItsInstaller has one cloned before and after.
func TestACloneOfWhatWasInstalledDoesNotBootItsInstaller(t *testing.T) {
	l := prepared(t)
	l.driver = hosts{Driver: enginetest.NewDriver(l.host)}
	l.open()
	cd := filepath.Join(t.TempDir(), "installer.iso")
	l.must(os.WriteFile(cd, nil, 0o600))
	_, err := l.Create(t.Context(), api.Spec{Name: "one", Foreign: &api.Foreign{ISO: cd, OS: "linux", BootOnce: "cd"}})
	l.must(err)
	early, err := l.Clone(t.Context(), "one", api.Clone{Name: "early"})
	l.must(err)
	l.must(l.Start(t.Context(), "one", nil))
	l.must(l.Stop(t.Context(), "one", engine.StopOptions{}))
	late, err := l.Clone(t.Context(), "one", api.Clone{Name: "late"})
	l.must(err)
	for clone, want := range map[string]string{early.Name: "cd", late.Name: ""} {
		l.must(l.Start(t.Context(), clone, nil))
		if got := l.host.Run(l.get(clone).ID).Plan.Foreign.BootOnce; got != want {
			t.Errorf("%s boots from %q first", clone, got)
		}
	}
}
