package gauge

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
)

// Command is the agent's name for it.
const Command = "gauge"

// maxBudget bounds how long a part takes.
const maxBudget = time.Hour

// job is one part that is asked for.
type job struct {
	budget time.Duration
	folder string
	out    []byte // lines of figures
}

// part returns what measures the part of that name, nil for none.
func part(name string) func(*job) error {
	switch name {
	case "hello":
		return func(*job) error { return nil }
	case "rest":
		return func(j *job) error { time.Sleep(j.budget); return nil }
	case "cpu":
		return (*job).cpu
	case "memory":
		return (*job).memory
	case "syscall":
		return (*job).syscall
	case "process":
		return (*job).process
	case "disk":
		return (*job).disk
	case "network":
		return (*job).network
	}
	return nil
}

// Run measures what arg says and returns the exit status.
func Run(arg string) int {
	measure, j, err := parse(arg)
	if err == nil {
		err = measure(j)
	}
	if err == nil {
		_, err = os.Stdout.Write(j.out)
	}
	if err != nil {
		os.Stderr.WriteString("gauge: " + err.Error() + "\n")
		return 1
	}
	return 0
}

func parse(arg string) (func(*job) error, *job, error) {
	name, rest, _ := strings.Cut(arg, ":")
	number, folder, _ := strings.Cut(rest, ":")
	measure := part(name)
	if measure == nil {
		return nil, nil, errors.New(strconv.Quote(name) + " is no part")
	}
	n, err := strconv.ParseUint(number, 10, 32)
	budget := time.Duration(n) * time.Millisecond
	if err != nil || budget == 0 || budget > maxBudget {
		return nil, nil, errors.New(strconv.Quote(number) + " is no number of milliseconds, from 1 to an hour's")
	}
	if name == "disk" && !strings.HasPrefix(folder, "/") {
		return nil, nil, errors.New("disk takes a folder, by an absolute path")
	}
	return measure, &job{budget: budget, folder: folder}, nil
}

// tell adds a figure.
func (j *job) tell(name string, figure float64) {
	j.out = append(append(j.out, name...), ' ')
	j.out = append(strconv.AppendFloat(j.out, figure, 'f', 3, 64), '\n')
}

// each tells how many nanoseconds one of n took.
func (j *job) each(name string, n int, took time.Duration) {
	j.tell(name, float64(took)/float64(n))
}

// rate tells how many of n there are in a second.
func (j *job) rate(name string, n int, took time.Duration) {
	j.tell(name, float64(n)/took.Seconds())
}
