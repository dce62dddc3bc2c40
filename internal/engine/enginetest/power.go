package enginetest

import (
	"context"
	"os"
	"path/filepath"

	"github.com/strata-project/strata/internal/stratum"
)

// Suspend makes the folder.
func (l live) Suspend(_ context.Context, dir string) error {
	if l.host.Suspend != nil {
		if err := l.host.Suspend(l.Run); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "state"), nil, 0o600)
}

// Reset ends the run.
func (l live) Reset(context.Context) (bool, error) {
	l.kill()
	return true, nil
}

// Interrupt notes that it was.
func (l live) Interrupt(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupts++
	return nil
}

// Interrupts tells how often it was interrupted.
func (r *Run) Interrupts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.interrupts
}

var (
	_ stratum.Suspender   = live{}
	_ stratum.Resetter    = live{}
	_ stratum.Interrupter = live{}
)
