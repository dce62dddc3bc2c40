package accel

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel/loop"
)

// patience bounds the process that runs the loop, which has a limit of its own.
const patience = loop.Patience + 2*time.Second

// maxAnswer bounds what that process says. Unit: bytes.
const maxAnswer = 1024

// Try has a loop run by KVM, in a process of strata-agent's (the program agent). sure
// tells whether the verdict would be the same another time on this host.
func Try(ctx context.Context, agent string) (v Verdict, sure bool) {
	if v, ok := absent(); ok {
		return v, false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	word, rest, err := ask(ctx, agent)
	if err != nil {
		return Verdict{Accelerator: qemu.TCG, Reason: "/dev/kvm opens, but was not tried: " + err.Error()}, false
	}
	switch word {
	case loop.Runs:
		if n, err := strconv.ParseInt(rest, 10, 64); err == nil {
			took := time.Duration(n).Round(10 * time.Microsecond)
			return Verdict{Accelerator: qemu.KVM, Reason: strconv.Itoa(loop.Steps) + " steps of a loop took " + took.String()}, true
		}
	case loop.Slow:
		return Verdict{Accelerator: qemu.TCG, Reason: "/dev/kvm opens but does not run a guest: " + rest}, true
	case loop.Failed:
		return Verdict{Accelerator: qemu.TCG, Reason: "/dev/kvm opens but does not run a guest: " + rest}, false
	}
	return Verdict{Accelerator: qemu.TCG, Reason: "/dev/kvm opens, but its trial says nothing that is known"}, false
}

// ask runs the process. One that hangs in the kernel for good is left behind when ctx
// ends: there is no other way.
func ask(ctx context.Context, agent string) (word, rest string, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return "", "", err
	}
	defer r.Close()
	cmd := exec.Command(agent, loop.Command)
	cmd.Stdout = w
	cmd.Env = []string{"GOMAXPROCS=2", "GOTRACEBACK=none"}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return "", "", err
	}
	defer func() {
		cmd.Process.Kill()
		go cmd.Wait()
	}()
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	text, err := io.ReadAll(io.LimitReader(r, maxAnswer))
	if ctx.Err() != nil {
		return "", "", context.Cause(ctx)
	}
	if err != nil {
		return "", "", err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	word, rest, _ = strings.Cut(strings.ToValidUTF8(string(line), "?"), " ")
	return word, rest, nil
}
