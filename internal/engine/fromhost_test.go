package engine

import (
	"net/netip"
	"testing"

	"github.com/strata-project/strata/api"
)

func TestAnAddressIsOneHoweverItIsWritten(t *testing.T) {
	ports, err := hostPorts([]api.Port{{HostIP: "::ffff:192.0.2.2", HostPort: 8080, Port: 80}})
	if err != nil || ports[0].HostIP != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("%v, %v", ports, err)
	}
}
