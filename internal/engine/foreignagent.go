package engine

import (
	"context"
	"path/filepath"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
)

// agentCD is the file of the CD with strata's agent in an environment's folder.
const agentCD = "agent.iso"

// InstallAgent puts strata's own agent into a foreign Linux system that runs: by a guest
// agent that answers there, or, where none does or byCD is set, by a CD that somebody
// inside has to use. Kinds: Missing, Conflict (it does not run), Unable, Busy.
func (e *Engine) InstallAgent(ctx context.Context, ref string, byCD bool) (api.AgentInstalled, error) {
	en, err := e.find(ref)
	if err != nil {
		return api.AgentInstalled{}, err
	}
	rec := en.snapshot()
	if rec.Spec.Foreign == nil {
		return api.AgentInstalled{}, fault.Unablef("%s has strata's agent inside already, as every template's environment", rec.Name)
	}
	if rec.Spec.Foreign.OS != "linux" || rec.Spec.Foreign.NoGuestAgent {
		return api.AgentInstalled{}, fault.Unablef("%s has no ports for strata's agent, which is for Linux", rec.Name).At("foreign.os").Help("run it with --os linux, and without --no-guest-agent")
	}
	if byCD {
		return e.agentByCD(ctx, en)
	}
	r, err := en.current("installed")
	if err != nil {
		return api.AgentInstalled{}, err
	}
	i, ok := r.live.(stratum.Installer)
	if !ok {
		return api.AgentInstalled{}, fault.Unablef("stratum %s installs no agent", rec.Stratum)
	}
	if a, ok := r.live.(stratum.Answering); ok && a.Answers() == nil {
		return e.agentByCD(ctx, en)
	}
	said, err := i.Install(ctx)
	if err != nil {
		return api.AgentInstalled{}, fault.Wrap(err, "install strata's agent in %s", rec.Name)
	}
	e.tell(ctx, en, "agent")
	return api.AgentInstalled{By: "guest-agent", Said: said}, nil
}

// agentByCD puts a CD with the agent into the drive.
func (e *Engine) agentByCD(ctx context.Context, en *entry) (api.AgentInstalled, error) {
	d, err := e.driver(en)
	if err != nil {
		return api.AgentInstalled{}, err
	}
	p, ok := d.(stratum.Packer)
	if !ok {
		return api.AgentInstalled{}, fault.Unablef("stratum %s has no agent to install", d.Stratum())
	}
	path := filepath.Join(e.store.Dir(en.id()), agentCD)
	command, err := p.Pack(path)
	if err != nil {
		return api.AgentInstalled{}, err
	}
	if err := e.Insert(ctx, en.id(), path); err != nil {
		return api.AgentInstalled{}, err
	}
	return api.AgentInstalled{By: "cd", Command: command}, nil
}

// settled tells whether strata's own agent answers inside a foreign system.
func (en *entry) settled() bool {
	en.mu.Lock()
	r := en.run
	en.mu.Unlock()
	if r == nil {
		return false
	}
	a, ok := r.live.(stratum.Answering)
	if !ok {
		return false
	}
	g := a.Answers()
	return g != nil && g.Kind == "strata"
}
