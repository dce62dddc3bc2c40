package guestagent

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Bounds of lists that an agent gives; what is more is left out.
const (
	maxCommands  = 256
	maxAddresses = 32
)

// Info is what an agent is.
type Info struct {
	Version  string
	Commands []string // that it does
}

// Does tells whether the agent does a command.
func (i Info) Does(command string) bool { return slices.Contains(i.Commands, command) }

// Info asks an agent what it is.
func (a *Agent) Info(ctx context.Context) (Info, error) {
	var raw struct {
		Version  string `json:"version"`
		Commands []struct {
			Name    string `json:"name"`
			Enabled bool   `json:"enabled"`
		} `json:"supported_commands"`
	}
	if err := a.ask(ctx, request{command: "guest-info"}, &raw); err != nil {
		return Info{}, err
	}
	i := Info{Version: clean(raw.Version, maxName)}
	for _, c := range raw.Commands[:min(len(raw.Commands), maxCommands)] {
		if c.Enabled {
			i.Commands = append(i.Commands, clean(c.Name, maxName))
		}
	}
	return i, nil
}

// System asks what runs inside, in words for people. An agent may not know.
func (a *Agent) System(ctx context.Context) (string, error) {
	var raw struct {
		Pretty string `json:"pretty-name"`
		Name   string `json:"name"`
	}
	if err := a.ask(ctx, request{command: "guest-get-osinfo"}, &raw); err != nil {
		return "", err
	}
	if raw.Pretty == "" {
		raw.Pretty = raw.Name
	}
	return clean(raw.Pretty, maxName), nil
}

// Addresses asks for the addresses that the system's network cards have, with prefix
// length, but for those of the loopback and of the link.
func (a *Agent) Addresses(ctx context.Context) ([]string, error) {
	var raw []struct {
		Addresses []struct {
			Address string `json:"ip-address"`
			Prefix  int    `json:"prefix"`
		} `json:"ip-addresses"`
	}
	if err := a.ask(ctx, request{command: "guest-network-get-interfaces"}, &raw); err != nil {
		return nil, err
	}
	var all []string
	for _, card := range raw {
		for _, one := range card.Addresses {
			at, err := netip.ParseAddr(one.Address)
			if err != nil || at.IsLoopback() || at.IsLinkLocalUnicast() || at.Zone() != "" {
				continue
			}
			p := netip.PrefixFrom(at, one.Prefix)
			if !p.IsValid() {
				continue
			}
			if all = append(all, p.String()); len(all) == maxAddresses {
				return all, nil
			}
		}
	}
	return all, nil
}

// shutdownPatience is how long an agent may take to have the system's end begun.
const shutdownPatience = 5 * time.Second

// Shutdown has the system switch itself off. That it has begun is all that is known: an
// agent says nothing of it, unless it failed.
func (a *Agent) Shutdown(ctx context.Context) error {
	return a.ask(ctx, request{
		command: "guest-shutdown", args: map[string]string{"mode": "powerdown"}, silent: true, patience: shutdownPatience,
	}, nil)
}

// freezePatience is how long a system may take to write out what it has: as long as an
// agent of Windows waits for it. Source: QEMU, qga/vss-win32, VSS_TIMEOUT_FREEZE_MSEC.
const freezePatience = 60 * time.Second

// Freeze has the system write out what it has and hold up who writes, and returns how many
// file systems that are. Thaw must follow, also where Freeze fails.
func (a *Agent) Freeze(ctx context.Context) (n int, err error) {
	err = a.ask(ctx, request{command: "guest-fsfreeze-freeze", patience: freezePatience}, &n)
	return n, err
}

// Thaw lets who writes go on.
func (a *Agent) Thaw(ctx context.Context) error {
	return a.ask(ctx, request{command: "guest-fsfreeze-thaw", patience: freezePatience}, nil)
}

// SetTime sets the system's clock.
func (a *Agent) SetTime(ctx context.Context, now time.Time) error {
	return a.ask(ctx, request{command: "guest-set-time", args: map[string]int64{"time": now.UnixNano()}}, nil)
}

// maxProcessors bounds the list of them.
const maxProcessors = 1024

// UseProcessors brings processors into use until n are, and returns how many are. Those
// that the system has not found yet are none.
func (a *Agent) UseProcessors(ctx context.Context, n int) (used int, err error) {
	type processor struct {
		Number int64 `json:"logical-id"`
		Used   bool  `json:"online"`
	}
	var all, asked []processor
	if err := a.ask(ctx, request{command: "guest-get-vcpus"}, &all); err != nil {
		return 0, err
	}
	all = all[:min(len(all), maxProcessors)]
	for _, p := range all {
		if p.Used {
			used++
		}
	}
	for _, p := range all {
		if !p.Used && used+len(asked) < n {
			asked = append(asked, processor{p.Number, true})
		}
	}
	if len(asked) == 0 {
		return used, nil
	}
	var done int
	err = a.ask(ctx, request{command: "guest-set-vcpus", args: map[string]any{"vcpus": asked}}, &done)
	return used + min(max(done, 0), len(asked)), err
}
