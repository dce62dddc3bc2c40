package engine_test

import (
	"context"
	"slices"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
)

// named is a store of one template with names.
type named struct {
	*enginetest.Templates
	names   []string
	damaged bool
}

func (n *named) Get(string) (api.Template, error) {
	switch {
	case n.damaged:
		return api.Template{}, fault.Unablef("it is damaged")
	case len(n.names) == 0:
		return api.Template{}, fault.Missingf("it is gone")
	}
	return api.Template{ID: "sha256:c0", Names: slices.Clone(n.names)}, nil
}

func (n *named) Remove(ref string, all bool, _ func(string) []string) (int64, error) {
	n.names = slices.DeleteFunc(n.names, func(name string) bool { return all || name == ref+":latest" })
	return 0, nil
}

func TestTheNameThatIsRemovedIsTheOneThatIsTold(t *testing.T) {
	l := prepared(t)
	store := &named{enginetest.NewTemplates(), []string{"a:latest", "b:latest", "c:latest"}, false}
	o := l.options()
	o.Templates = store
	e, err := engine.Open(t.Context(), o)
	l.must(err)
	t.Cleanup(func() { l.must(e.Close(context.Background())) })
	events := e.Subscribe(t.Context(), engine.Filter{Types: []string{"template"}})
	for _, name := range []string{"b", "c", "a"} {
		_, err := e.RemoveTemplate(t.Context(), name, false)
		l.must(err)
		if ev := <-events; ev.Action != "remove" || ev.Name != name+":latest" {
			t.Errorf("%s is removed, and told is %s %s", name, ev.Action, ev.Name)
		}
	}
	store.names, store.damaged = []string{"a:latest", "b:latest"}, true
	_, err = e.RemoveTemplate(t.Context(), "b", true)
	l.must(err)
	if len(store.names) != 0 {
		t.Errorf("by force of a damaged one: left is %q", store.names)
	}
}
