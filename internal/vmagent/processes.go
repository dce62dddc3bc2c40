package vmagent

import (
	"os"
	"strconv"

	"github.com/strata-project/strata/internal/process"
	"github.com/strata-project/strata/internal/vmagent/control/answer"
)

// processes answers with all but those of the kernel, and the agent where it is not
// process 1, and tells whether there are more than are listed.
func processes() (m answer.Message) {
	proc, err := os.Open("/proc")
	if err != nil {
		return m
	}
	defer proc.Close()
	reader, users := process.NewReader(), process.UsersOf("/")
	own, listed := os.Getpid(), 0
	for {
		entries, err := proc.Readdirnames(512)
		for _, name := range entries {
			pid, e := strconv.Atoi(name)
			if e != nil || pid == own && own != 1 {
				continue
			}
			p, ok := reader.Read(pid)
			if !ok || p.Kernel {
				continue
			}
			if listed == process.Max {
				m.Bool(3, true)
				return m
			}
			m.Bytes(2, processMessage(p, users))
			listed++
		}
		if err != nil {
			return m
		}
	}
}

func processMessage(p process.Process, users process.Users) (m answer.Message) {
	m.Int(1, int64(p.PID))
	m.Int(2, int64(p.Parent))
	m.Text(3, users.Name(p.UID))
	m.Int(4, p.CPU)
	m.Int(5, p.Memory)
	m.Text(6, p.Command)
	m.Int(7, p.Age)
	return m
}
