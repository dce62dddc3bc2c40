package guestagent

import (
	"context"
	"time"
)

// The most that a program can be given as its input, and that it may write, on both
// streams together. Unit: bytes.
const (
	MaxInput  = 1 << 20
	MaxOutput = 12 << 20
)

// Program is what is to be run inside. The agent runs it as itself, mostly as root, in a
// folder of its own choice.
type Program struct {
	Path  string // or a name, which is looked for where the agent looks
	Args  []string
	Env   []string // NAME=value, instead of the agent's own; nil: those
	Input []byte   // at most MaxInput
}

// Start runs a program and returns its number, by which Status asks for it.
func (a *Agent) Start(ctx context.Context, p Program) (int64, error) {
	var started struct {
		PID int64 `json:"pid"`
	}
	err := a.ask(ctx, request{command: "guest-exec", args: struct {
		Path    string   `json:"path"`
		Args    []string `json:"arg,omitempty"`
		Env     []string `json:"env,omitempty"`
		Input   []byte   `json:"input-data,omitempty"`
		Capture bool     `json:"capture-output"`
	}{p.Path, p.Args, p.Env, p.Input, true}}, &started)
	return started.PID, err
}

// Status is how a program is doing. What it wrote is known once it has ended.
type Status struct {
	Ended     bool
	Code      uint8 // its exit status; of what does not fit 255 is made
	Signal    uint8 // that ended it; 0: none
	Out, Err  []byte
	Truncated bool // the agent has left output out
}

// outputPatience is how long the output of a program may take to come.
const outputPatience = time.Minute

// maxSignal is the highest number of a signal. Source: signal(7), SIGRTMAX.
const maxSignal = 64

// Status asks how a program is doing that Start has started. Once it has told of the end,
// the agent knows the program no longer.
func (a *Agent) Status(ctx context.Context, pid int64) (Status, error) {
	var raw struct {
		Exited       bool   `json:"exited"`
		Code         int64  `json:"exitcode"`
		Signal       int64  `json:"signal"`
		Out          []byte `json:"out-data"`
		Err          []byte `json:"err-data"`
		OutTruncated bool   `json:"out-truncated"`
		ErrTruncated bool   `json:"err-truncated"`
	}
	err := a.ask(ctx, request{command: "guest-exec-status", args: map[string]int64{"pid": pid}, max: maxOutput, patience: outputPatience}, &raw)
	if err != nil {
		return Status{}, err
	}
	s := Status{Ended: raw.Exited, Out: raw.Out, Err: raw.Err, Truncated: raw.OutTruncated || raw.ErrTruncated, Code: 255}
	if raw.Code >= 0 && raw.Code <= 255 {
		s.Code = uint8(raw.Code)
	}
	if raw.Signal > 0 && raw.Signal <= maxSignal {
		s.Signal = uint8(raw.Signal)
	}
	return s, nil
}
