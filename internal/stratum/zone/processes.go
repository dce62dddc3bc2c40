package zone

import (
	"context"
	"strconv"

	proc "github.com/strata-project/strata/internal/process"
	"github.com/strata-project/strata/internal/stratum"
)

// Processes implements stratum.Lister: the host's kernel knows all of a zone's.
func (l *Live) Processes(ctx context.Context) (list []stratum.Task, more bool, err error) {
	pids, err := l.Group.Processes()
	if err != nil {
		return nil, false, err
	}
	init := l.PID()
	users, ids := proc.UsersOf("/proc/"+strconv.Itoa(init)+"/root"), proc.IDsOf(init)
	reader := proc.NewReader()
	inside := make(map[int]int, len(pids))
	for _, pid := range pids {
		if len(list) == proc.Max || ctx.Err() != nil {
			more = true
			break
		}
		p, ok := reader.Read(pid)
		if !ok {
			continue
		}
		inside[pid] = p.Inside
		list = append(list, stratum.Task{
			PID: p.Inside, Parent: p.Parent, HostPID: pid, User: users.Name(ids.Inside(p.UID)),
			CPU: p.CPU, Age: p.Age, Memory: p.Memory, Command: p.Command,
		})
	}
	for i := range list {
		list[i].Parent = inside[list[i].Parent]
	}
	return list, more, nil
}

var _ stratum.Lister = (*Live)(nil)
