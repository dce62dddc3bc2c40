package servertest

import (
	"context"

	"github.com/strata-project/strata/api"
)

// AttachDisk implements server.Devices.
func (e *Engine) AttachDisk(_ context.Context, ref string, d api.Disk) (api.Disk, error) {
	d.Name = "disk1"
	return d, e.turn(ref, api.Running, api.Running)
}

// AttachCard implements server.Devices.
func (e *Engine) AttachCard(_ context.Context, ref string, c api.Card) (api.Card, error) {
	c.Name = "card1"
	return c, e.turn(ref, api.Running, api.Running)
}

// Detach implements server.Devices.
func (e *Engine) Detach(_ context.Context, ref, _ string) error {
	return e.turn(ref, api.Running, api.Running)
}
