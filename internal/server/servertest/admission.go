package servertest

import (
	"context"
	"time"

	"github.com/strata-project/strata/api"
)

// Capacity implements server.Admission.
func (e *Engine) Capacity(context.Context) api.Capacity {
	return api.Capacity{Held: []api.Claim{}, Waiting: []api.Claim{}}
}

// Queue implements server.Admission: there is always room.
func (e *Engine) Queue(_ context.Context, ref string, _ api.Next, _ time.Duration) error {
	_, err := e.get(ref)
	return err
}
