// Package undo rolls back half-made work.
//
// Each step that made something pushes how to take it back; when the whole
// fails, the steps are undone last first, on a context that is not cancelled
// with the request. When the whole succeeds nothing is undone.
//
//	var back undo.Stack
//	defer back.Unless(ctx, &err)
//	...
//	back.Push("remove link", func(ctx context.Context) error { return ... })
//
// The package imports nothing of strata.
package undo

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Patience bounds a whole roll-back.
const Patience = 30 * time.Second

// Stack holds the steps to take back. The zero value is empty and ready.
// It is not safe for concurrent use.
type Stack struct {
	steps []step
}

type step struct {
	what string
	undo func(context.Context) error
}

// Push adds a step; what names it as "verb object".
func (s *Stack) Push(what string, undo func(context.Context) error) {
	s.steps = append(s.steps, step{what, undo})
}

// Unless rolls back if *err is set when it runs, and joins to *err whatever
// could not be taken back. It is meant to be deferred.
func (s *Stack) Unless(ctx context.Context, err *error) {
	if *err == nil {
		return
	}
	if failed := s.Roll(ctx); failed != nil {
		*err = fmt.Errorf("%w (and not taken back: %w)", *err, failed)
	}
}

// Roll undoes every step, last first, and empties the stack. A step that fails
// does not stop the others. ctx gives values only: its end does not count.
func (s *Stack) Roll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), Patience)
	defer cancel()
	var failed []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		if err := s.steps[i].undo(ctx); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", s.steps[i].what, err))
		}
	}
	s.steps = nil
	return errors.Join(failed...)
}

// Keep forgets every step: what was made stays.
func (s *Stack) Keep() { s.steps = nil }
