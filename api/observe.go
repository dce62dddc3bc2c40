package api

import "time"

// Task is one process of an environment, or, where Missing says something, why
// those of an environment are not listed, or not all of them.
type Task struct {
	ID          string `json:"id" doc:"Of the environment."`
	Environment string `json:"environment" doc:"Its name."`
	Stratum     string `json:"stratum"`
	PID         int    `json:"pid,omitempty" doc:"Its number inside."`
	Parent      int    `json:"parent,omitempty" doc:"Its parent's number inside."`
	HostPID     int    `json:"host_pid,omitempty" doc:"Its number on the host, where the host knows it."`
	User        string `json:"user,omitempty" doc:"As inside: a name, or a number that has none."`
	CPUTime     int64  `json:"cpu_time,omitempty" doc:"Nanoseconds of processor time since it began."`
	Age         int64  `json:"age,omitempty" doc:"Nanoseconds since it began."`
	Memory      int64  `json:"memory,omitempty" doc:"Bytes resident."`
	Command     string `json:"command,omitempty"`
	Missing     string `json:"missing,omitempty" doc:"Why processes of the environment are not listed."`
}

// TaskList is every process of some environments at one moment.
type TaskList struct {
	Time      time.Time `json:"time"`
	Processes []Task    `json:"processes"`
}

// CPU is how much of one processor it has used on average since it began. Unit: percent.
func (t Task) CPU() float64 {
	if t.Age <= 0 {
		return 0
	}
	return 100 * float64(t.CPUTime) / float64(t.Age)
}
