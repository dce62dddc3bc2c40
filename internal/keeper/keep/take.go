package keep

import (
	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// take makes a spare machine somebody's. Nothing has run in it since the keeper is there,
// so nothing was logged, and nobody is attached. client is the keeper's from then on; -1:
// there is none.
func (k *keeper) take(t *wire.Taken, client int) *wire.Failure {
	m := k.machine
	f := (*far)(nil)
	if m != nil {
		f = m.channel(0)
	}
	if f == nil || f.begun {
		discard(client)
		return &wire.Failure{Kind: "internal", Message: "this is no spare machine"}
	}
	s := &k.spec
	s.ID, s.Socket, s.ExitFile, s.StatusFile, s.Log = t.ID, t.Socket, t.ExitFile, t.StatusFile, t.Log
	s.System, s.TTY, s.Stdin, s.Machine.ConsoleLog = t.System, t.TTY, t.Stdin, t.ConsoleLog
	s.Payload.Victim = t.Victim
	k.offerAgain()
	k.log = logfile.Writer{Dir: t.Log.Dir, Size: t.Log.Size, Files: t.Log.Files}
	m.log = logfile.Writer{Dir: t.ConsoleLog.Dir, Size: t.ConsoleLog.Size, Files: t.ConsoleLog.Files}
	k.main.tty, k.main.in.tty = t.TTY, t.TTY
	f.inputOver = !t.Stdin && !t.TTY
	if client < 0 {
		return nil
	}
	if err := k.main.join(client, true); err != nil {
		return joinFault(err)
	}
	return nil
}
