package zone

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/agent/spec"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/resource"
	"github.com/strata-project/strata/internal/stratum"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testFacts() hostFacts {
	return hostFacts{
		dir: "/run/strata/env", agent: "/usr/lib/strata/strata-agent", app: []byte("app-seccomp-filter-16"), system: []byte("system-filter"), files: 20000,
		appCgroups:    []spec.Cgroup{{Name: "memory", Options: "memory"}},
		systemCgroups: []spec.Cgroup{{V2: true, Writable: true}},
	}
}

func testPlan() stratum.Plan {
	return stratum.Plan{
		ID: "0123456789ab", Name: "web", Hostname: "web", IDBase: 1 << 20, Disk: "/var/lib/strata/environments/0123456789ab/disk.ext4",
		Main:      stratum.Process{Args: []string{"nginx", "-g", "daemon off;"}, Env: []string{"PATH=/bin"}, User: "www-data", WorkDir: "/srv"},
		Layers:    []stratum.LayerFile{{Digest: "sha256:1", Path: "/l1"}},
		Files:     []stratum.File{{Path: "/etc/hosts", Data: []byte("127.0.0.1 localhost\n")}},
		Volumes:   []api.Volume{{Source: "/a", Target: "/data/inner/most"}, {Source: "/b", Target: "/data", ReadOnly: true}},
		Tmpfs:     []api.Tmpfs{{Target: "/scratch", Size: 1 << 20, Mode: 0o1777}},
		Resources: api.Resources{Memory: 64 << 20, CPUs: 500, PIDs: 100},
		Log:       stratum.LogPlan{Dir: "/var/lib/strata/environments/0123456789ab/log", Size: 1 << 20, Files: 3},
	}
}

func TestPlan(t *testing.T) {
	for name, change := range map[string]func(*stratum.Plan){
		"app":            func(*stratum.Plan) {},
		"app-privileged": func(p *stratum.Plan) { p.NewPrivileges, p.ReadOnly, p.Main.TTY, p.Main.Stdin = true, true, true, true },
		"idle":           func(p *stratum.Plan) { p.Idle, p.Main = true, stratum.Process{} },
		"system":         func(p *stratum.Plan) { p.System, p.Main = true, stratum.Process{Args: []string{"/sbin/init"}} },
	} {
		t.Run(name, func(t *testing.T) {
			p := testPlan()
			change(&p)
			l, err := plan(p, testFacts())
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(l, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != string(got)+"\n" {
				t.Errorf("the plan differs from %s (write it with -update):\n%s", golden, got)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*stratum.Plan)
		field  string
	}{
		"no command":         {func(p *stratum.Plan) { p.Main.Args = nil }, "command"},
		"no layer":           {func(p *stratum.Plan) { p.Layers = nil }, "template"},
		"a volume over /":    {func(p *stratum.Plan) { p.Volumes[0].Target = "/x/.." }, "volumes"},
		"a relative volume":  {func(p *stratum.Plan) { p.Volumes[0].Target = "data" }, "volumes"},
		"a tmpfs over /":     {func(p *stratum.Plan) { p.Tmpfs[0].Target = "/" }, "tmpfs"},
		"an id that is path": {func(p *stratum.Plan) { p.ID = "../x" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := testPlan()
			c.change(&p)
			_, err := plan(p, testFacts())
			if !fault.Is(err, fault.Invalid) || fault.All(err)[0].Field != c.field {
				t.Errorf("plan = %v; want invalid at %q", err, c.field)
			}
		})
	}
}

func TestCgroupsThatAreShown(t *testing.T) {
	hybrid := resource.Layout{Version: resource.Hybrid, Unified: "/sys/fs/cgroup/unified", Controllers: map[string]string{
		"cpu": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory", "pids": "/sys/fs/cgroup/pids"}}
	const own = "5:name=systemd:/\n4:pids:/x\n3:memory:/x\n2:cpuset:/\n1:cpu,cpuacct:/\n0::/\n"
	app, system := cgroups(hybrid, own)
	var shown []string
	for _, c := range app {
		shown = append(shown, c.Name)
		if c.Writable {
			t.Errorf("an app may write to %s", c.Name)
		}
	}
	if strings.Join(shown, " ") != "pids memory cpu,cpuacct" {
		t.Errorf("an app sees %v", shown)
	}
	if len(system) != 1 || !system[0].V2 || !system[0].Writable || system[0].Name != "" {
		t.Errorf("an init sees %+v", system)
	}
	app, system = cgroups(resource.Layout{Version: resource.V2, Unified: "/sys/fs/cgroup"}, "0::/x\n")
	if len(app) != 1 || !app[0].V2 || app[0].Writable || len(system) != 1 || !system[0].Writable {
		t.Errorf("on v2: %+v, %+v", app, system)
	}
}
