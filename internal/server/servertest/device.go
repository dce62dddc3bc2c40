package servertest

import (
	"context"
	"slices"

	"github.com/strata-project/strata/api"
)

// AttachDisk implements server.Devices.
func (e *Engine) AttachDisk(_ context.Context, ref string, d api.Disk) (api.Disk, error) {
	d.Name = "disk1"
	return d, e.plug(ref, func(env *api.Environment) { env.Disks = append(env.Disks, d) })
}

// AttachCard implements server.Devices.
func (e *Engine) AttachCard(_ context.Context, ref string, c api.Card) (api.Card, error) {
	c.Name = "card1"
	return c, e.plug(ref, func(env *api.Environment) { env.Cards = append(env.Cards, c) })
}

// Detach implements server.Devices.
func (e *Engine) Detach(_ context.Context, ref, name string) error {
	return e.plug(ref, func(env *api.Environment) {
		env.Disks = slices.DeleteFunc(slices.Clone(env.Disks), func(d api.Disk) bool { return d.Name == name })
		env.Cards = slices.DeleteFunc(slices.Clone(env.Cards), func(c api.Card) bool { return c.Name == name })
	})
}

// plug changes what is attached to an environment that runs.
func (e *Engine) plug(ref string, change func(*api.Environment)) error {
	if err := e.turn(ref, api.Running, api.Running); err != nil {
		return err
	}
	r, err := e.get(ref)
	if err == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		change(&r.env)
	}
	return err
}
