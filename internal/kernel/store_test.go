package kernel

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/internal/synth"
)

func TestKernelsAreFoundByNameReleaseAndID(t *testing.T) {
	s := open(t)
	if _, err := s.Get(""); !fault.Is(err, fault.Missing) || !strings.Contains(fault.All(err)[0].Hint, "strata kernel add debian") {
		t.Errorf("an empty store: %v", err)
	}
	one, err := importing(t, s, monolith(), "one")
	if err != nil {
		t.Fatal(err)
	}
	digits := strings.TrimPrefix(one.ID, idPrefix)
	for _, ref := range []string{"", "one", synth.Release, one.ID, digits, digits[:4], idPrefix + digits[:6]} {
		if k, err := s.Get(ref); err != nil || k.ID != one.ID {
			t.Errorf("%q: %v, %v", ref, k.Name, err)
		}
	}
	for _, ref := range []string{"on", digits[:3], "sha256:", "../one"} {
		if _, err := s.Get(ref); !fault.Is(err, fault.Missing) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	// Another build of the same release.
	two, err := importing(t, s, append(monolith(), 1), "")
	if err != nil || two.Name != synth.Release || two.Default {
		t.Fatalf("%+v, %v", two, err)
	}
	three, err := importing(t, s, append(monolith(), 2), "")
	if err != nil || three.Name != synth.Release+"-"+short(three.ID)[:6] {
		t.Fatalf("%+v, %v", three, err)
	}
	if k, err := s.Get(synth.Release); err != nil || k.ID != two.ID {
		t.Errorf("a name goes before a release: %v, %v", k.Name, err)
	}
	if _, _, err := s.Remove(two.Name, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(synth.Release); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "names 2 kernels") {
		t.Errorf("two of a release: %v", err)
	}
}

func TestTheSameContentIsTheSameKernel(t *testing.T) {
	s := open(t)
	one, err := importing(t, s, monolith(), "")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := importing(t, s, synth.BzImage(zipped(monolith()), synth.Release), ""); err != nil || again.ID != one.ID || again.Name != one.Name || len(s.List()) != 1 {
		t.Errorf("%+v, %v", again, err)
	}
	if _, err := importing(t, s, monolith(), "other"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is here already, as "+one.Name) {
		t.Errorf("another name for it: %v", err)
	}
	if _, err := importing(t, s, append(monolith(), 1), one.Name); !fault.Is(err, fault.Conflict) {
		t.Errorf("a name that is taken: %v", err)
	}
	for _, name := range []string{"../x", ".x", "a b", "x/y", strings.Repeat("a", 200)} {
		if _, err := importing(t, s, monolith(), name); !fault.Is(err, fault.Invalid) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	// One whose file is gone is made whole by adding it again.
	if err := os.Remove(one.Vmlinux()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(one.Name); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged: %v", err)
	}
	if _, err := importing(t, s, monolith(), ""); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Get(one.ID); err != nil || k.Name != one.Name {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestTheDefaultIsTheFirstUntilAnotherIsChosen(t *testing.T) {
	s := open(t)
	for i, name := range []string{"one", "two", "three"} {
		if _, err := importing(t, s, append(monolith(), byte(i)), name); err != nil {
			t.Fatal(err)
		}
	}
	is := func(s *Store, want string) {
		t.Helper()
		if k, err := s.Get(""); err != nil || k.Name != want || !k.Default {
			t.Errorf("the default is %s, want %s, %v", k.Name, want, err)
		}
		count := 0
		for _, k := range s.List() {
			if k.Default {
				count++
			}
		}
		if count != 1 {
			t.Errorf("%d kernels are the default", count)
		}
	}
	is(s, "one")
	if k, err := s.SetDefault("two"); err != nil || !k.Default {
		t.Errorf("%+v, %v", k, err)
	}
	is(s, "two")
	for ref, kind := range map[string]fault.Kind{"none": fault.Missing, "": fault.Invalid} {
		if _, err := s.SetDefault(ref); !fault.Is(err, kind) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	again, err := Open(s.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	is(again, "two")
	if _, _, err := again.Remove("two", func(k Kernel) []string { return []string{"web"} }); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "used by web") {
		t.Errorf("in use: %v", err)
	}
	k, freed, err := again.Remove("two", func(k Kernel) []string {
		if !k.Default {
			t.Error("who uses it is asked without saying that it is the default")
		}
		return nil
	})
	if err != nil || k.Name != "two" || freed < int64(len(monolith())) {
		t.Errorf("%v, %d, %v", k.Name, freed, err)
	}
	is(again, "three") // the newest that is left
	if _, err := os.Stat(k.Dir()); !os.IsNotExist(err) {
		t.Error("its folder is there still", err)
	}
	if _, _, err := again.Remove("two", nil); !fault.Is(err, fault.Missing) {
		t.Errorf("twice: %v", err)
	}
}

func TestOneDamagedRecordDoesNotStopTheOthers(t *testing.T) {
	s := open(t)
	one, err := importing(t, s, monolith(), "one")
	if err != nil {
		t.Fatal(err)
	}
	two, err := importing(t, s, append(monolith(), 1), "two")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(one.Dir(), recordFile), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{workDir + "/add-1/x", temporary + "1/x", initramfsDir + "/" + temporary + "1"} {
		path := filepath.Join(s.dir, left)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	again, err := Open(s.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if all := again.List(); len(all) != 1 || all[0].ID != two.ID || !all[0].Default || all[0].Size != two.Size || !all[0].Added.Equal(two.Added) {
		t.Errorf("there are %+v", all)
	}
	for _, left := range []string{workDir + "/add-1", temporary + "1", initramfsDir + "/" + temporary + "1"} {
		if _, err := os.Stat(filepath.Join(s.dir, left)); !os.IsNotExist(err) {
			t.Errorf("%s is there still", left)
		}
	}
	if k, err := importing(t, again, monolith(), "one"); err != nil || k.ID != one.ID {
		t.Errorf("added again: %v", err)
	}
}

func TestAnInitramfsIsMadeOnce(t *testing.T) {
	s := open(t)
	k, err := importing(t, s, synth.Tar(distribution(t)...), "")
	if err != nil {
		t.Fatal(err)
	}
	set, err := k.Set(Guest)
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(t.TempDir(), "agent")
	write := func(text string) {
		if err := os.WriteFile(agent, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("the agent")
	var made sync.Map
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			i, err := s.Initramfs(t.Context(), k, agent, set)
			if err != nil {
				t.Error(err)
			}
			made.Store(i, true)
		})
	}
	all.Wait()
	var images []Image
	made.Range(func(i, _ any) bool { images = append(images, i.(Image)); return true })
	if len(images) != 1 {
		t.Fatalf("they got %v", images)
	}
	first := images[0]
	data, err := os.ReadFile(first.Path)
	if err != nil || int64(len(data)) != first.Size {
		t.Fatalf("%d bytes of %d, %v", len(data), first.Size, err)
	}
	for _, want := range []string{"init\x00", "the agent", "modules/000-crc32c_generic.ko\x00", "/modules/001-virtio_ring.ko\n/modules/002-virtio.ko\n", "newroot\x00", "dev/console\x00"} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("it has no %q", want)
		}
	}
	write("another agent")
	second, err := s.Initramfs(t.Context(), k, agent, set)
	if err != nil || second.Digest == first.Digest || second.Path == first.Path {
		t.Errorf("with another agent: %+v, %v", second, err)
	}
	fewer, err := k.Set(Wanted{Required: []string{"virtio"}})
	if err != nil {
		t.Fatal(err)
	}
	if third, err := s.Initramfs(t.Context(), k, agent, fewer); err != nil || third.Digest == second.Digest || third.Size >= second.Size {
		t.Errorf("with fewer modules: %+v, %v", third, err)
	}
	if _, err := s.Initramfs(t.Context(), k, agent+"-none", set); !fault.Is(err, fault.Missing) {
		t.Errorf("without an agent: %v", err)
	}
	write("an agent for a kernel that is damaged")
	if err := os.WriteFile(set.Modules[0].Path, []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Initramfs(t.Context(), k, agent, set); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "module crc32c_generic") {
		t.Errorf("with a module that changed: %v", err)
	}
}

func TestWhatNobodyAskedForIsPruned(t *testing.T) {
	s := open(t)
	k, err := importing(t, s, monolith(), "")
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(t.TempDir(), "agent")
	var made []Image
	for _, text := range []string{"old", "new"} {
		if err := os.WriteFile(agent, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		i, err := s.Initramfs(t.Context(), k, agent, Set{})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, i)
	}
	past := time.Now().Add(-48 * time.Hour)
	for _, i := range made {
		if err := os.Chtimes(i.Path, past, past); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Initramfs(t.Context(), k, agent, Set{}); err != nil { // the new one is used
		t.Fatal(err)
	}
	if freed, err := s.Prune(time.Now().Add(-24 * time.Hour)); err != nil || freed != made[0].Size {
		t.Errorf("freed %d, want %d, %v", freed, made[0].Size, err)
	}
	if _, freed, err := s.Remove(k.ID, nil); err != nil || freed < made[1].Size {
		t.Errorf("freed %d, %v", freed, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, initramfsDir)); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestVersionsAreComparedAsPeopleDo(t *testing.T) {
	sorted := []string{"", "5.10.0", "6.1.0-9", "6.1.0-10", "6.1.0-10-cloud", "6.9", "6.10", "6.10.1", "x"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := compareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%q and %q: %d", a, b, got)
			}
		}
	}
}

func TestDependenciesAreReadAsAptPrintsThem(t *testing.T) {
	text := "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-40-cloud-amd64\n |Depends: one\n  Depends: <virtual>\n  PreDepends: kmod\n  Suggests: linux-doc-6.1\n"
	if got := strings.Join(parseDepends([]byte(text)), " "); got != "linux-image-6.1.0-40-cloud-amd64 one kmod" {
		t.Errorf("they are %q", got)
	}
	var told []float64
	followStatus(strings.NewReader("dlstatus:1:12.5:Retrieving\npmstatus:x:50:y\ndlstatus:1:x:y\ndlstatus:1:200:y\n"), func(p float64) { told = append(told, p) })
	if len(told) != 1 || told[0] != 12.5 {
		t.Errorf("progress is %v", told)
	}
}

func FuzzImport(f *testing.F) {
	files := distribution(f)
	f.Add(synth.Tar(files...))
	f.Add(synth.Package("data.tar", synth.Tar(files[:4]...)))
	f.Add(synth.Package("data.tar.zst", zstded(f, synth.Tar(files[:2]...))))
	f.Add(zipped(monolith()))
	s, err := Open(f.TempDir(), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := s.Import(t.Context(), bytes.NewReader(data), ImportOptions{}, nil)
		if err != nil {
			if fault.Is(err, fault.Internal) {
				t.Errorf("not the archive's fault: %v", err)
			}
			return
		}
		if _, err := k.Set(Guest); err != nil {
			t.Errorf("it was kept, and %v", err)
		}
		if _, _, err := s.Remove(k.ID, nil); err != nil {
			t.Error(err)
		}
	})
}
