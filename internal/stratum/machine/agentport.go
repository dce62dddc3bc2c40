package machine

import (
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel"
	"github.com/strata-project/strata/internal/stratum"
)

// The agent's ports.
const (
	virtioPort = "virtio"
	serialPort = "serial"
)

// agentPort is how the agent of p's template is reached in a system of kernel k. Kinds:
// Unable where k has no driver for what is asked for.
func agentPort(p stratum.Plan, k kernel.Kernel) (string, error) {
	set, err := k.Set(kernel.Wanted{Optional: []string{"virtio_pci", "virtio_console"}})
	if err != nil {
		return "", err
	}
	bus, ports := set.Has("virtio_pci"), set.Has("virtio_console")
	switch asked := p.Hardware.AgentPort; {
	case len(p.Volumes) > 0 && !bus:
		return "", fault.Unablef("kernel %s has no module virtio_pci, which volumes need", k.Name).At("volumes").Help("use another kernel: strata kernel ls")
	case asked == virtioPort && !(bus && ports):
		return "", fault.Unablef("kernel %s has no drivers for virtio-serial", k.Name).At("hardware.agent_port").Help("leave it out, or say serial")
	case asked != "":
		return asked, nil
	case bus && ports:
		return virtioPort, nil
	}
	return serialPort, nil
}
