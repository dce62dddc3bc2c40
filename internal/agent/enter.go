package agent

import (
	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// enter becomes a program inside a zone that runs already. The keeper has made
// it the leader of a session, inside all namespaces and with the root's ids.
func enter(k *keeper) int {
	if err := become(k); err != nil {
		k.failed(err)
	}
	return 125
}

func become(k *keeper) error {
	b, err := program.ReadAll(wire.ExecProcessFD, spec.MaxSize)
	if err != nil {
		return wrap(err, "read the process")
	}
	p, err := spec.ReadProcess(b)
	if err != nil {
		return err
	}
	img, err := program.Prepare(p)
	if err != nil {
		return err
	}
	if p.TTY {
		t, err := program.OpenTerminal(p, img.UID())
		if err != nil {
			return err
		}
		if err := k.say(wire.Message{Type: wire.TTY}, t.Master); err != nil {
			return wrap(err, "hand over the terminal")
		}
		img.TTY = t.Slave
	} else {
		program.GiveStreams(img.UID(), 0, 1, 2)
	}
	return img.Become()
}
