package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// two are kernels of which the last that was chosen is the default one.
type two struct {
	engine.Kernels
	chosen string
}

func (k *two) List() []api.Kernel {
	return []api.Kernel{{ID: "sha256:a", Name: "old"}, {ID: "sha256:b", Name: "new"}}
}

func (k *two) Get(ref string) (api.Kernel, error) {
	if ref == "" {
		ref = k.chosen
	}
	for _, one := range k.List() {
		if one.Name == ref {
			return one, nil
		}
	}
	return api.Kernel{}, fault.Missingf("there is no kernel %s", ref)
}

func (k *two) For(_, ref string) (api.Kernel, error) { return k.Get(ref) }

func (k *two) SetDefault(ref string) (api.Kernel, error) {
	k.chosen = ref
	return k.Get(ref)
}

func (k *two) Remove(ref string, used func(api.Kernel) []string) (api.Kernel, int64, error) {
	one, err := k.Get(ref)
	if err == nil && len(used(one)) > 0 {
		err = fault.Conflictf("kernel %s is in use", ref)
	}
	return one, 1, err
}

// reviving is a driver whose suspended systems know their kernel, in the file kernel.
type reviving struct{ deeper }

func (reviving) SavedKernel(dir string) (string, error) {
	name, err := os.ReadFile(filepath.Join(dir, "kernel"))
	if err != nil {
		return "", fault.Missingf("it is not there: %w", err)
	}
	return string(name), nil
}

func TestTheKernelOfASuspendedSystemStays(t *testing.T) {
	l := prepared(t)
	o := l.options()
	o.Kernels = &two{chosen: "old"}
	o.Drivers = append(o.Drivers, reviving{deeper{enginetest.NewDriver(enginetest.NewHost())}})
	e, err := engine.Open(t.Context(), o)
	l.must(err)
	l.Engine = e
	t.Cleanup(func() { e.Close(context.Background()) })
	usedBy := func(want map[string][]string) {
		t.Helper()
		all, err := l.Kernels(t.Context())
		l.must(err)
		for _, k := range all {
			if !slices.Equal(k.UsedBy, want[k.Name]) {
				t.Errorf("%s is used by %v; want %v", k.Name, k.UsedBy, want[k.Name])
			}
		}
	}
	web := l.run(api.Spec{Name: "web", Stratum: stratum.Guest})
	l.create(api.Spec{Name: "db", Stratum: stratum.Guest})
	l.must(l.Suspend(t.Context(), "web"))
	l.must(os.WriteFile(filepath.Join(l.savedDir(web.ID), "kernel"), []byte("old"), 0o600))
	usedBy(map[string][]string{"old": {"db", "web"}})
	_, err = l.SetDefaultKernel(t.Context(), "new")
	l.must(err)
	usedBy(map[string][]string{"old": {"web"}, "new": {"db"}})
	_, err = l.RemoveKernel(t.Context(), "old")
	kindIs(t, err, fault.Conflict, "in use")
	l.must(l.Kill(t.Context(), "web", "")) // nothing goes on with it any more
	usedBy(map[string][]string{"new": {"db", "web"}})
	_, err = l.RemoveKernel(t.Context(), "old")
	l.must(err)
}

// TestAForeignSystemUsesNoKernel of strata's, which it has no need of: its disk has its own.
func TestAForeignSystemUsesNoKernel(t *testing.T) {
	l := prepared(t)
	o := l.options()
	o.Kernels = &two{chosen: "old"}
	o.Drivers = append(o.Drivers, hosts{Driver: enginetest.NewDriver(enginetest.NewHost())})
	e, err := engine.Open(t.Context(), o)
	l.must(err)
	l.Engine = e
	t.Cleanup(func() { e.Close(context.Background()) })
	cd := filepath.Join(t.TempDir(), "cd.iso")
	l.must(os.WriteFile(cd, nil, 0o600))
	_, err = l.Create(t.Context(), api.Spec{Name: "bsd", Foreign: &api.Foreign{ISO: cd, OS: "bsd"}})
	l.must(err)
	l.must(l.Start(t.Context(), "bsd", nil))
	if env := l.get("bsd"); env.Stratum != stratum.Machine || env.State != api.Running {
		t.Fatalf("it is %s at %s", env.State, env.Stratum)
	}
	l.create(api.Spec{Name: "web", Stratum: stratum.Machine})
	k, err := l.Kernel(t.Context(), "old")
	if l.must(err); !slices.Equal(k.UsedBy, []string{"web"}) {
		t.Errorf("used by %v", k.UsedBy)
	}
	l.must(l.Remove(t.Context(), "web", false))
	_, err = l.RemoveKernel(t.Context(), "old")
	l.must(err)
}
