package virtual

import (
	"context"

	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/vmagent/control"
)

// Processes implements stratum.Lister: its agent knows them.
func (l *Live) Processes(ctx context.Context) (list []stratum.Task, more bool, err error) {
	err = l.ask(ctx, func(c *control.Client) error {
		found, rest, err := c.Processes(ctx)
		list, more = make([]stratum.Task, 0, len(found)), rest
		for _, p := range found {
			list = append(list, stratum.Task{
				PID: int(p.Pid), Parent: int(p.Parent), User: p.User, CPU: p.Cpu, Age: p.Age, Memory: p.Memory, Command: p.Command,
			})
		}
		return err
	})
	return list, more, err
}

var _ stratum.Lister = (*Live)(nil)
