package agent

import (
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
	b, err := readAll(wire.ExecProcessFD, spec.MaxSize)
	if err != nil {
		return wrap(err, "read the process")
	}
	p, err := spec.ReadProcess(b)
	if err != nil {
		return err
	}
	img, err := prepare(p)
	if err != nil {
		return err
	}
	if p.TTY {
		t, err := openTerminal(p, int(img.uid))
		if err != nil {
			return err
		}
		if err := k.say(wire.Message{Type: wire.TTY}, t.master); err != nil {
			return wrap(err, "hand over the terminal")
		}
		img.tty = t.slave
	} else {
		giveStreams(int(img.uid))
	}
	stage, errno := apply(img)
	return explain(p, stage, errno)
}
