package zone

import (
	"encoding/json"
	"testing"

	"github.com/strata-project/strata/internal/keeper/wire"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
)

// An exec goes to the keeper as one packet, seccomp filter included.
func TestAnExecFitsAPacket(t *testing.T) {
	f, err := gather("/run", "/agent", resource.Layout{Version: resource.V2, Unified: "/sys/fs/cgroup"})
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]notes{"app": {}, "system": {System: true, NewPrivileges: true}} {
		text, err := json.Marshal(wire.Request{Op: "exec", Exec: &wire.Exec{Process: *process(stratum.Process{Args: []string{"sh"}}, n, f)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", name, len(text))
		if len(text) > wire.MaxMessage/2 {
			t.Errorf("an exec into kind %s takes %d bytes, and leaves too little of %d for its arguments", name, len(text), wire.MaxMessage)
		}
	}
}
