package environment

import (
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

func TestForeignSystemsAreAskedForAlone(t *testing.T) {
	disk := &api.Foreign{DiskImage: "/images/a.qcow2"}
	for what, c := range map[string]struct {
		spec  api.Spec
		field string // of the one fault; "": none
	}{
		"a disk image":               {api.Spec{Foreign: disk}, ""},
		"an ISO alone":               {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", Boot: []string{"cd"}}}, ""},
		"an ISO with a disk":         {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", Boot: []string{"disk", "cd"}, BootOnce: "cd"}, Resources: api.Resources{Disk: unit.GiB}}, ""},
		"limits, ports and a policy": {api.Spec{Foreign: disk, Resources: api.Resources{Memory: unit.GiB, CPUs: 2000}, Ports: []api.Port{{HostPort: 1, Port: 1}}, Restart: api.Restart{Policy: "always"}}, ""},
		"nothing to boot":            {api.Spec{Foreign: &api.Foreign{OS: "dos"}}, "foreign"},
		"a template as well":         {api.Spec{Foreign: disk, Template: "busybox"}, "template"},
		"a relative path":            {api.Spec{Foreign: &api.Foreign{DiskImage: "a.qcow2"}}, "foreign.disk_image"},
		"an import of nothing":       {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", Import: true}}, "foreign.disk_image"},
		"an unknown kind":            {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", OS: "plan9"}}, "foreign.os"},
		"an unknown format":          {api.Spec{Foreign: &api.Foreign{DiskImage: "/a", Format: "vpc"}}, "foreign.format"},
		"a boot from no disk":        {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", Boot: []string{"disk"}}}, "foreign.boot[0]"},
		"a boot from one twice":      {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", Boot: []string{"cd", "cd"}}}, "foreign.boot[1]"},
		"a boot from no network":     {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", BootOnce: "network"}, Network: NoNetwork}, "foreign.boot_once"},
		"a check by an agent":        {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", OS: "linux"}, Health: &api.Health{Test: []string{"CMD", "true"}}}, ""},
		"a check by nobody":          {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", OS: "linux", NoGuestAgent: true}, Health: &api.Health{Test: []string{"CMD", "true"}}}, "health"},
		"a check of DOS":             {api.Spec{Foreign: &api.Foreign{ISO: "/a.iso", OS: "dos"}, Health: &api.Health{Test: []string{"CMD", "true"}}}, "health"},
		"a command":                  {api.Spec{Foreign: disk, Command: []string{"sh"}}, "command"},
		"a volume":                   {api.Spec{Foreign: disk, Volumes: []api.Volume{{Source: "/a", Target: "/b"}}}, "volumes"},
		"a kernel":                   {api.Spec{Foreign: disk, Kernel: "a"}, "kernel"},
		"a terminal":                 {api.Spec{Foreign: disk, TTY: true}, "tty"},
	} {
		t.Run(what, func(t *testing.T) {
			err := Validate(c.spec, Bounds{})
			if c.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			all := fault.All(err)
			if len(all) != 1 || all[0].Field != c.field || all[0].Hint == "" || all[0].Kind != fault.Invalid {
				t.Errorf("%v", err)
			}
		})
	}
	pids, page, policy, none := int64(100), unit.Size(2*unit.MiB), api.ReclaimIdle, int64(0)
	for what, c := range map[string]struct {
		update api.Update
		field  string
	}{
		"processes":          {api.Update{PIDs: &pids}, "resources.pids"},
		"huge pages":         {api.Update{HugePages: &page}, "resources.hugepages"},
		"memory given back":  {api.Update{Reclaim: &policy}, "resources.reclaim"},
		"what takes it away": {api.Update{PIDs: &none}, ""},
	} {
		_, err := Change(api.Spec{Foreign: disk}, c.update, Bounds{})
		if all := fault.All(err); c.field == "" && err != nil || c.field != "" && (len(all) != 1 || all[0].Field != c.field || all[0].Kind != fault.Invalid) {
			t.Errorf("a change of %s: %v", what, err)
		}
	}
	r, err := Resolve(api.Spec{Foreign: disk}, "a", api.Template{})
	if err != nil || r.Kind != Foreign || len(r.Args) != 0 || r.StopGrace == 0 || !strings.EqualFold(r.Hostname, "a") {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = Resolve(api.Spec{Foreign: disk, StopGrace: new(unit.Duration)}, "a", api.Template{})
	if err != nil || r.StopGrace != 0 {
		t.Errorf("without a grace: %+v, %v", r, err)
	}
}
