package engine_test

import (
	"context"
	"io"
	"slices"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/engine/enginetest"
	"github.com/strata-project/strata/internal/fault"
)

// committing is a store that keeps what it was asked to commit.
type committing struct {
	*enginetest.Templates
	engine.TemplateMoves
	base, name string
	like       api.Template
	without    []string
	busy       func() error // what happens before it reads; nil: it does not
}

func (c *committing) Commit(ctx context.Context, base string, root func(context.Context, io.Writer) error, like api.Template, name string, without []string, _ func(api.Progress)) (api.Template, error) {
	c.base, c.like, c.name, c.without = base, like, name, without
	if c.busy != nil {
		return api.Template{}, fault.Join(c.busy(), root(ctx, io.Discard))
	}
	return api.Template{ID: "sha256:c0", Names: []string{name}}, nil
}

func TestACommitIsLikeTheEnvironment(t *testing.T) {
	l := prepared(t)
	store := &committing{Templates: enginetest.NewTemplates()}
	o := l.options()
	o.Templates = store
	e, err := engine.Open(t.Context(), o)
	l.must(err)
	t.Cleanup(func() { l.must(e.Close(context.Background())) })
	made, err := e.Create(t.Context(), api.Spec{
		Name: "one", Template: "busybox", Command: []string{"httpd", "-f"}, Env: []string{"A=b"}, WorkDir: "/srv", StopSignal: "INT", Kind: "system",
		Health: &api.Health{Test: []string{"NONE"}},
	})
	l.must(err)
	got, err := e.Commit(t.Context(), "one", "shop:1")
	l.must(err)
	c := store.like.Config
	if got.ID != "sha256:c0" || store.base != made.TemplateID || store.name != "shop:1" || store.like.Kind != "system" ||
		!slices.Equal(c.Command, []string{"httpd", "-f"}) || len(c.Entrypoint) != 0 || !slices.Equal(c.Env, []string{"A=b"}) ||
		c.WorkDir != "/srv" || c.StopSignal != "INT" || c.Health == nil || c.Health.Test[0] != "NONE" {
		t.Errorf("made of %q as %q like %+v", store.base, store.name, store.like)
	}
	if !slices.Contains(store.without, "/etc/hosts") || !slices.Contains(store.without, "/proc") {
		t.Errorf("without %q", store.without)
	}
	store.busy = func() error { return e.Start(t.Context(), "one", nil) } // while it waits for its turn
	_, err = e.Commit(t.Context(), "one", "")
	kindIs(t, err, fault.Conflict, "stands still")
	_, err = e.Commit(t.Context(), "one", "")
	kindIs(t, err, fault.Conflict, "stands still")
	_, err = e.Commit(t.Context(), "none", "")
	kindIs(t, err, fault.Missing)
}
