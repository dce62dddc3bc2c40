package machine

import (
	"bytes"
	"context"
	_ "embed" // the script
	"errors"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/disk/image"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/qemu/guestagent"
	"github.com/strata-project/strata/internal/stratum"
)

// installScript puts the agent in its place and has it started.
//
//go:embed install.sh
var installScript []byte

// agentPlace is where the agent is inside, as installScript has it.
const agentPlace = "/usr/local/lib/strata"

// How long an installation may take once the agent is inside, and the agent to answer then.
const (
	installPatience = time.Minute
	settlePatience  = time.Minute
)

// machineNames are uname's names of what Go builds for.
var machineNames = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// Install implements stratum.Installer.
func (f *Foreign) Install(ctx context.Context) (string, error) {
	agent, err := f.answering(ctx, "strata's agent cannot be installed")
	if err != nil {
		return "", err
	}
	kind, err := run(ctx, agent, "uname -s -m && mkdir -p "+agentPlace)
	if err != nil {
		return "", err
	}
	if want := "Linux " + machineNames[runtime.GOARCH]; kind != want {
		return "", fault.Unablef("the system inside is %q, and strata's agent is for %s", kind, want)
	}
	program, err := os.Open(f.program)
	if err != nil {
		return "", fault.Internalf("open the agent: %w", err)
	}
	defer program.Close()
	if err := agent.WriteFile(ctx, agentPlace+"/agent.new", program); err != nil {
		return "", fault.Wrap(inside(err), "write the agent inside")
	}
	if err := agent.WriteFile(ctx, agentPlace+"/install.sh", bytes.NewReader(installScript)); err != nil {
		return "", fault.Wrap(inside(err), "write the script inside")
	}
	said, err := run(ctx, agent, "sh "+agentPlace+"/install.sh "+agentPlace)
	if err != nil {
		return said, err
	}
	f.Leave() // one that was there before has ended
	ctx, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	for {
		if f.look(ctx); f.settled() {
			return said, nil
		}
		select {
		case <-ctx.Done():
			return said, fault.Busyf("strata's agent was installed, and does not answer: %s", said).Help("look inside: systemctl status strata-agent")
		case <-f.Over():
			return said, fault.Conflictf("the system ended before strata's agent answered")
		case <-time.After(time.Second):
		}
	}
}

// inside makes a fault of what an agent refuses.
func inside(err error) error {
	var refused *guestagent.Refused
	if errors.As(err, &refused) {
		return fault.Unablef("%s", refused.Error())
	}
	return err
}

// run has a shell inside do something, and returns what it says.
func run(ctx context.Context, agent *guestagent.Agent, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, installPatience)
	defer cancel()
	pid, err := agent.Start(ctx, guestagent.Program{Path: "/bin/sh", Args: []string{"-c", command}})
	for wait := pollFirst; err == nil; wait = min(2*wait, pollMost) {
		var s guestagent.Status
		if s, err = agent.Status(ctx, pid); err != nil || !s.Ended {
			select {
			case <-ctx.Done():
				return "", fault.Busyf("what installs strata's agent does not end inside: %w", ctx.Err())
			case <-time.After(wait):
			}
			continue
		}
		said := words(append(s.Out, s.Err...))
		if s.Code != 0 || s.Signal != 0 {
			return said, fault.Unablef("strata's agent cannot be installed: %s", said)
		}
		return said, nil
	}
	return "", inside(err)
}

// maxSaid bounds what is shown of a shell's words. Unit: bytes.
const maxSaid = 1 << 10

// words makes what a shell wrote printable.
func words(b []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r >= 0x7f {
			return '?'
		}
		return r
	}, string(b[:min(len(b), maxSaid)])))
}

// cdLabel is the CD's name, by which a system finds it.
const cdLabel = "STRATA"

// Pack implements stratum.Packer.
func (d *Driver) Pack(path string) (string, error) {
	program, err := os.ReadFile(d.Program())
	if err != nil {
		return "", fault.Internalf("read the agent: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fault.Internalf("make the CD: %w", err)
	}
	err = image.Burn(f, cdLabel, []image.CDFile{{Name: "agent", Data: program}, {Name: "install.sh", Data: installScript}})
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(fault.Wrap(err, "write the CD"), os.Remove(path))
	}
	return "mount -L " + cdLabel + " /mnt && sh /mnt/install.sh && umount /mnt", nil
}

var (
	_ stratum.Installer = (*Foreign)(nil)
	_ stratum.Packer    = (*Driver)(nil)
)
