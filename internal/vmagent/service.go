package vmagent

import (
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/root"
	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/version"
	"github.com/strata-project/strata/internal/vmagent/control/answer"
	"github.com/strata-project/strata/internal/vmagent/spec"
)

// The numbers of control/agent.proto's State.
const (
	stateWaiting = 1
	stateRunning = 2
)

// handle answers one request. The numbers of fields are those of control/agent.proto.
func (a *agent) handle(method string, payload []byte) (m answer.Message, ok bool) {
	switch method {
	case "Info":
		return a.info(), true
	case "Run":
		fail(&m, a.run(bytesOf(payload, 1)))
	case "SetLimits":
		fail(&m, a.setLimits(spec.Limits{Memory: numberOf(payload, 1), PIDs: numberOf(payload, 2), Processors: int(numberOf(payload, 3)), Whole: numberOf(payload, 4)}))
	case "Stats":
		s, err := a.stats()
		fail(&m, err)
		for i, v := range []int64{s.CPU, s.Memory, s.MemoryPeak, s.OOMKills, s.PIDs, s.MemoryHits, s.Swap, s.PIDsPeak, s.PIDsHits, s.DiskSize, s.DiskFree} {
			m.Int(2+i, v)
		}
	case "Processes":
		m = processes()
	case "SetClock":
		fail(&m, setClock(numberOf(payload, 1)))
	case "Freeze":
		fail(&m, a.freeze())
	case "Thaw":
		fail(&m, a.thaw())
	case "Shutdown":
		a.quit.Do(func() { go a.off() })
	case "GrowDisk":
		fail(&m, a.growDisk(numberOf(payload, 1)))
	case "KernelLog":
		text, err := kernelLog()
		fail(&m, err)
		m.Bytes(2, text)
	default:
		return nil, false
	}
	return m, true
}

func (a *agent) info() (m answer.Message) {
	m.Text(1, version.Version)
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Text(2, unix.ByteSliceToString(name.Release[:]))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	m.Int(4, int64(a.state))
	for _, f := range a.faults {
		m.Text(5, f)
	}
	return m
}

func (a *agent) setLimits(l spec.Limits) error {
	if err := online(l.Processors); err != nil { // which others do not wait for
		return err
	}
	if err := populate(l.Whole); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != stateRunning {
		return errNotRunning
	}
	if a.installed {
		if l.Memory == 0 && l.PIDs == 0 {
			return nil
		}
		return root.Fail("unable", "limits", "the system inside is not strata's, and limits itself")
	}
	return a.group.limit(l)
}

func (a *agent) stats() (spec.Stats, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != stateRunning {
		return spec.Stats{}, errNotRunning
	}
	if a.installed {
		return wholeStats(), nil
	}
	s := a.group.stats()
	s.DiskSize, s.DiskFree = a.room()
	return s, nil
}

// room is the size of the private disk's file system, and what of it programs may take;
// 0 where nobody can write there.
func (a *agent) room() (size, free int64) {
	var st unix.Statfs_t
	if unix.Fstatfs(a.disk, &st) != nil || st.Flags&unix.ST_RDONLY != 0 {
		return 0, 0
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize
}

var errNotRunning = root.Fail("conflict", "", "nothing runs inside yet")

// maxReason bounds the words of a failure. Unit: bytes.
const maxReason = 8 << 10

// fail puts err, where there is one, into field 1, which is that of every answer's failure.
func fail(m *answer.Message, err error) {
	if err != nil {
		m.Bytes(1, failure(root.FailureOf(err)))
	}
}

func failure(f *wire.Failure) (m answer.Message) {
	m.Text(1, f.Kind)
	m.Text(2, f.Field)
	m.Text(3, f.Message[:min(len(f.Message), maxReason)])
	m.Text(4, f.Hint)
	return m
}

func numberOf(b []byte, field int) (n int64) {
	answer.Read(b, func(f int, v uint64, _ []byte) {
		if f == field {
			n = int64(v)
		}
	})
	return n
}

func bytesOf(b []byte, field int) (value []byte) {
	answer.Read(b, func(f int, _ uint64, data []byte) {
		if f == field {
			value = data
		}
	})
	return value
}
