package machine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/undo"
)

// Plug implements stratum.Plugger.
func (l *Live) Plug(ctx context.Context, p stratum.Plan, d stratum.Device, tap *stratum.Tap) error {
	if err := l.d.driven(p, d); err != nil {
		return err
	}
	return l.Monitor(ctx, func(q *qemu.QMP) (err error) {
		var back undo.Stack
		defer back.Unless(ctx, &err)
		if d.Disk != nil {
			err = l.lend(ctx, q, d, &back)
		} else {
			err = cable(ctx, q, d, tap, &back)
		}
		if err != nil {
			return err
		}
		return q.Execute(ctx, "device_add", plugged(d).Device(), nil)
	})
}

// lend has QEMU open the image of a disk.
func (l *Live) lend(ctx context.Context, q *qemu.QMP, d stratum.Device, back *undo.Stack) error {
	c, err := openAttached(d, l.d.o.Places.State)
	if err != nil {
		return err
	}
	defer c.Close() // QEMU has its own
	images, files, err := sets(c, d.Place)
	if err != nil {
		return err
	}
	back.Push("have QEMU close the image", func(ctx context.Context) error { return takeBack(ctx, q, d) })
	for i, file := range files {
		set := map[string]any{"fdset-id": machine.SetsOf(d.Place) + i}
		if err := q.Execute(ctx, "add-fd", set, nil, file); err != nil {
			return err
		}
	}
	program, err := qemu.Find(ctx)
	if err != nil {
		return err
	}
	for _, n := range plugged(d).Nodes(images, program.Ring) {
		if err := q.Execute(ctx, "blockdev-add", n, nil); err != nil {
			return err
		}
	}
	return nil
}

// takeBack has QEMU close the image of a disk that it has no longer.
func takeBack(ctx context.Context, q *qemu.QMP, d stratum.Device) error {
	var nodes []struct {
		Name string `json:"node-name"`
	}
	if err := q.Execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &nodes); err != nil {
		return err
	}
	there := map[string]bool{}
	for _, n := range nodes {
		there[n.Name] = true
	}
	name := d.Name()
	for i := 0; i == 0 || there[name]; i++ { // the highest image first: it uses the next
		if there[name] {
			if err := q.Execute(ctx, "blockdev-del", map[string]string{"node-name": name}, nil); err != nil {
				return err
			}
		}
		name = fmt.Sprintf("%s-%d", d.Name(), i+1)
	}
	var found []struct {
		Number int `json:"fdset-id"`
	}
	if err := q.Execute(ctx, "query-fdsets", nil, &found); err != nil {
		return err
	}
	var all []error
	for _, set := range found {
		if machine.OwnSet(d.Place, set.Number) {
			all = append(all, q.Execute(ctx, "remove-fd", map[string]int{"fdset-id": set.Number}, nil))
		}
	}
	return errors.Join(all...)
}

// cable gives QEMU the tap of a card.
func cable(ctx context.Context, q *qemu.QMP, d stratum.Device, tap *stratum.Tap, back *undo.Stack) error {
	id := plugged(d).Netdev()
	if tap == nil {
		return fault.Internalf("%s has no cable", d.Name())
	}
	if err := q.Execute(ctx, "getfd", map[string]string{"fdname": id}, nil, tap.File); err != nil {
		return err
	}
	if err := q.Execute(ctx, "netdev_add", map[string]any{"type": "tap", "id": id, "fd": id, "vhost": false}, nil); err != nil {
		return errors.Join(err, q.Execute(ctx, "closefd", map[string]string{"fdname": id}, nil))
	}
	back.Push("take the cable away", func(ctx context.Context) error {
		return q.Execute(ctx, "netdev_del", map[string]string{"id": id}, nil)
	})
	return nil
}

// How long a system may take to let go of a device, and how often is looked. A session
// with the monitor keeps others waiting, so each look has one of its own.
const (
	letGo     = 15 * time.Second
	letGoLook = 200 * time.Millisecond
)

// Unplug implements stratum.Plugger. A device that is gone already, since the system let
// go of it later, is only tidied up after.
func (l *Live) Unplug(ctx context.Context, d stratum.Device) error {
	err := l.Execute(ctx, "device_del", map[string]string{"id": d.Name()}, nil)
	var refused *qemu.Refused
	switch {
	case errors.As(err, &refused) && refused.Class == "DeviceNotFound":
	case errors.As(err, &refused) && strings.Contains(refused.Desc, "already in the process of unplug"):
	case err != nil:
		return err
	}
	patient, cancel := context.WithTimeout(ctx, letGo)
	defer cancel()
	for {
		there, err := l.has(ctx, d.Name())
		if err != nil {
			return err
		}
		if !there {
			break
		}
		select {
		case <-patient.Done():
			return fault.Conflictf("the system inside was asked to let go of %s, and has not", d.Name()).
				Help("have it stop using the device, and try again; or stop the system first")
		case <-time.After(letGoLook):
		}
	}
	for {
		err := l.Monitor(ctx, func(q *qemu.QMP) error {
			if d.Card != nil {
				return q.Execute(ctx, "netdev_del", map[string]string{"id": plugged(d).Netdev()}, nil)
			}
			return takeBack(ctx, q, d)
		})
		// A device lets go of its image a moment after it has gone.
		if !errors.As(err, &refused) || !strings.Contains(refused.Desc, "in use") {
			return err
		}
		select {
		case <-patient.Done():
			return err
		case <-time.After(letGoLook):
		}
	}
}

// Has implements stratum.Plugger.
func (l *Live) Has(ctx context.Context, d stratum.Device) (bool, error) { return l.has(ctx, d.Name()) }

func (l *Live) has(ctx context.Context, id string) (bool, error) {
	var all []struct {
		Name string `json:"name"`
	}
	if err := l.Execute(ctx, "qom-list", map[string]string{"path": "/machine/peripheral"}, &all); err != nil {
		return false, err
	}
	for _, one := range all {
		if one.Name == id {
			return true, nil
		}
	}
	return false, nil
}

var _ stratum.Plugger = (*Live)(nil)
