package undo

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestRollsBackLastFirstOnACancelledRequest(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var order []string
	work := func() (err error) {
		var back Stack
		defer back.Unless(ctx, &err)
		for _, name := range []string{"a", "b", "c"} {
			back.Push("undo "+name, func(ctx context.Context) error {
				if ctx.Err() != nil {
					t.Errorf("%s is undone on a cancelled context", name)
				}
				order = append(order, name)
				if name == "b" {
					return errors.New("stuck")
				}
				return nil
			})
		}
		cancel()
		return errors.New("failed")
	}
	err := work()
	if !slices.Equal(order, []string{"c", "b", "a"}) {
		t.Errorf("order = %v", order)
	}
	if !strings.Contains(err.Error(), "failed") || !strings.Contains(err.Error(), "undo b: stuck") {
		t.Errorf("err = %v", err)
	}
}

func TestSuccessUndoesNothing(t *testing.T) {
	undone := false
	work := func() (err error) {
		var back Stack
		defer back.Unless(t.Context(), &err)
		back.Push("undo", func(context.Context) error { undone = true; return nil })
		return nil
	}
	if err := work(); err != nil || undone {
		t.Errorf("err = %v, undone = %v", err, undone)
	}
}
