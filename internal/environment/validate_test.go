package environment_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

var bounds = environment.Bounds{DiskFloor: 32 * unit.MiB, DiskCeiling: 8 * unit.TiB}

func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		spec   api.Spec
		fields []string // at fault, in order; none: it is valid
	}{
		"the least there is":                 {api.Spec{}, nil},
		"a name is a DNS label":              {api.Spec{Name: "web-1"}, nil},
		"a name of upper case":               {api.Spec{Name: "Web"}, []string{"name"}},
		"a name with a dot":                  {api.Spec{Name: "a.b"}, []string{"name"}},
		"a name that begins with a hyphen":   {api.Spec{Name: "-a"}, []string{"name"}},
		"a name of 64 letters":               {api.Spec{Name: strings.Repeat("a", 64)}, []string{"name"}},
		"a name of 63 letters":               {api.Spec{Name: strings.Repeat("a", 63)}, nil},
		"a name that looks like an id":       {api.Spec{Name: "0123456789ab"}, []string{"name"}},
		"an unknown kind and stratum":        {api.Spec{Kind: "pod", Stratum: "cellar"}, []string{"kind", "stratum"}},
		"a host name may have dots":          {api.Spec{Hostname: "Web.example.org"}, nil},
		"a host name with an underscore":     {api.Spec{Hostname: "a_b"}, []string{"hostname"}},
		"env without a name or =":            {api.Spec{Env: []string{"A=1", "B", "=x", "C="}}, []string{"env[1]", "env[2]"}},
		"env with a zero byte":               {api.Spec{Env: []string{"A=\x00"}}, []string{"env[0]"}},
		"an argument that is too long":       {api.Spec{Command: []string{"a", strings.Repeat("x", 128<<10)}}, []string{"command[1]"}},
		"an empty program":                   {api.Spec{Command: []string{""}}, []string{"command[0]"}},
		"an empty argument is one":           {api.Spec{Command: []string{"a", ""}}, nil},
		"one empty entrypoint clears":        {api.Spec{Entrypoint: []string{""}, Command: []string{"a"}}, nil},
		"two entrypoints, one empty":         {api.Spec{Entrypoint: []string{"", "a"}}, []string{"entrypoint[0]"}},
		"a relative workdir":                 {api.Spec{WorkDir: "tmp"}, []string{"workdir"}},
		"users by name and number":           {api.Spec{User: "1000:www-data"}, nil},
		"a user that is none":                {api.Spec{User: "a b"}, []string{"user"}},
		"a group that is missing":            {api.Spec{User: "a:"}, []string{"user"}},
		"too little memory":                  {api.Spec{Resources: api.Resources{Memory: 6*unit.MiB - 1}}, []string{"resources.memory"}},
		"just enough memory":                 {api.Spec{Resources: api.Resources{Memory: 6 * unit.MiB}}, nil},
		"cpus below the floor":               {api.Spec{Resources: api.Resources{CPUs: 9}}, []string{"resources.cpus"}},
		"half a cpu":                         {api.Spec{Resources: api.Resources{CPUs: 500}}, nil},
		"fewer processes than a start takes": {api.Spec{Resources: api.Resources{PIDs: 1}}, []string{"resources.pids"}},
		"processes below none":               {api.Spec{Resources: api.Resources{PIDs: -1}}, []string{"resources.pids"}},
		"a disk below the floor":             {api.Spec{Resources: api.Resources{Disk: unit.MiB}}, []string{"resources.disk"}},
		"a disk above the ceiling":           {api.Spec{Resources: api.Resources{Disk: 9 * unit.TiB}}, []string{"resources.disk"}},
		"a rate of reading below the least":  {api.Spec{Resources: api.Resources{IORead: unit.MiB - 1}}, []string{"resources.io_read"}},
		"fewer writes than the least":        {api.Spec{Resources: api.Resources{IOWriteOps: 9}}, []string{"resources.io_write_ops"}},
		"the least rates of disks":           {api.Spec{Resources: api.Resources{IORead: unit.MiB, IOWrite: unit.MiB, IOReadOps: 10, IOWriteOps: 10}}, nil},
		"relative paths of a volume":         {api.Spec{Volumes: []api.Volume{{Source: "a", Target: "b"}}}, []string{"volumes[0].source", "volumes[0].target"}},
		"two things at one target":           {api.Spec{Volumes: []api.Volume{{Source: "/a", Target: "/x/"}}, Tmpfs: []api.Tmpfs{{Target: "/y/../x"}}}, []string{"tmpfs[0].target"}},
		"a volume over the root":             {api.Spec{Volumes: []api.Volume{{Source: "/a", Target: "/"}}}, []string{"volumes[0].target"}},
		"a tmpfs over /proc":                 {api.Spec{Tmpfs: []api.Tmpfs{{Target: "/proc"}}}, []string{"tmpfs[0].target"}},
		"a tmpfs of one byte and odd mode":   {api.Spec{Tmpfs: []api.Tmpfs{{Target: "/t", Size: 1, Mode: 0o10000}}}, []string{"tmpfs[0].size", "tmpfs[0].mode"}},
		"a DNS server that is a name":        {api.Spec{DNS: []string{"192.0.2.1", "example.org"}}, []string{"dns[1]"}},
		"the same host port twice":           {api.Spec{Ports: []api.Port{{HostPort: 80, Port: 80}, {HostPort: 80, Port: 81, HostIP: "127.0.0.1"}}}, []string{"ports[1]"}},
		"the same port of two protocols":     {api.Spec{Ports: []api.Port{{HostPort: 53, Port: 53}, {HostPort: 53, Port: 53, Protocol: "udp"}}}, nil},
		"the same port at two addresses":     {api.Spec{Ports: []api.Port{{HostPort: 53, Port: 53, HostIP: "127.0.0.1"}, {HostPort: 53, Port: 53, HostIP: "127.0.0.2"}}}, nil},
		"two ways to write one address":      {api.Spec{Ports: []api.Port{{HostPort: 53, Port: 53, HostIP: "127.0.0.1"}, {HostPort: 53, Port: 53, HostIP: "::ffff:127.0.0.1"}}}, []string{"ports[1]"}},
		"IPv6's loopback":                    {api.Spec{Ports: []api.Port{{HostPort: 53, Port: 53, HostIP: "::1"}}}, []string{"ports[0].host_ip"}},
		"port 0, odd protocol and address":   {api.Spec{Ports: []api.Port{{Protocol: "sctp", HostIP: "all"}}}, []string{"ports[0].host_port", "ports[0].port", "ports[0].protocol", "ports[0].host_ip"}},
		"ports without a network":            {api.Spec{Network: "none", Ports: []api.Port{{HostPort: 80, Port: 80}}}, []string{"ports"}},
		"an unknown stop signal":             {api.Spec{StopSignal: "SIGWHAT"}, []string{"stop_signal"}},
		"a negative grace":                   {api.Spec{StopGrace: new(unit.Duration(-1))}, []string{"stop_grace"}},
		"an unknown restart policy":          {api.Spec{Restart: api.Restart{Policy: "sometimes"}}, []string{"restart.policy"}},
		"a bound without on-failure":         {api.Spec{Restart: api.Restart{Policy: "always", Max: 3}}, []string{"restart.max"}},
		"on-failure with a bound":            {api.Spec{Restart: api.Restart{Policy: "on-failure", Max: 3}}, nil},
		"removed and started again":          {api.Spec{AutoRemove: true, Restart: api.Restart{Policy: "always"}}, []string{"auto_remove"}},
		"a health test in plain words":       {api.Spec{Health: &api.Health{Test: []string{"curl"}}}, []string{"health.test"}},
		"CMD-SHELL with two lines":           {api.Spec{Health: &api.Health{Test: []string{"CMD-SHELL", "a", "b"}}}, []string{"health.test"}},
		"CMD without a command":              {api.Spec{Health: &api.Health{Test: []string{"CMD"}}}, []string{"health.test"}},
		"a health interval of a nanosecond":  {api.Spec{Health: &api.Health{Test: []string{"NONE"}, Interval: 1}}, []string{"health.interval"}},
		"a label without a key":              {api.Spec{Labels: map[string]string{"": "x"}}, []string{"labels"}},
		"a log of one byte in 101 files":     {api.Spec{Log: api.LogLimits{Size: 1, Files: 101}}, []string{"log.size", "log.files"}},
		"every fault at once": {api.Spec{Name: "A", Env: []string{"B"}, User: ":", StopSignal: "X", Resources: api.Resources{Memory: 1}},
			[]string{"name", "env[0]", "user", "resources.memory", "stop_signal"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.spec.Template = "busybox"
			var fields []string
			for _, f := range fault.All(environment.Validate(c.spec, bounds)) {
				fields = append(fields, f.Field)
				if f.Kind != fault.Invalid {
					t.Errorf("%v is of kind %s", f, f.Kind)
				}
			}
			if fmt.Sprint(fields) != fmt.Sprint(c.fields) {
				t.Errorf("at fault: %v; want %v", fields, c.fields)
			}
		})
	}
	if !fault.Is(environment.Validate(api.Spec{}, bounds), fault.Invalid) {
		t.Error("a spec without a template is valid")
	}
	if err := environment.CheckName("No_Good", "name"); !strings.Contains(err.Error(), environment.NameRule) {
		t.Errorf("%q does not say the rule", err)
	}
}

func TestRoomForMemoryThatIsNoneIsRefusedOfNewOnesOnly(t *testing.T) {
	for name, c := range map[string]struct {
		has, most unit.Size
		field     string
	}{
		"no room asked for":      {unit.GiB, 0, ""},
		"room":                   {unit.GiB, unit.GiB + unit.MiB, ""},
		"as much as it has":      {unit.GiB, unit.GiB, "memory_max"},
		"less than it has":       {unit.GiB, unit.MiB, "memory_max"},
		"room, without a limit":  {0, unit.GiB, ""},
		"no whole number of MiB": {0, 7, "memory_max"},
	} {
		for _, foreign := range []bool{false, true} {
			spec, prefix := api.Spec{Template: "busybox", Resources: api.Resources{Memory: c.has}}, "hardware."
			if h := (api.Hardware{MemoryMax: c.most}); foreign {
				spec.Foreign, spec.Template, prefix = &api.Foreign{ISO: "/cd", Hardware: h}, "", "foreign."
			} else {
				spec.Hardware = h
			}
			got, want := "", ""
			for _, f := range fault.All(environment.ValidateNew(spec, bounds)) {
				got += f.Field
			}
			if c.field != "" {
				want = prefix + c.field
			}
			if got != want {
				t.Errorf("%s, foreign %t: at fault %q, want %q", name, foreign, got, want)
			}
			if err := environment.Validate(spec, bounds); c.most%unit.MiB == 0 && err != nil {
				t.Errorf("%s, foreign %t: one that is kept is refused: %v", name, foreign, err)
			}
		}
	}
}

// FuzzValidate holds that no spec makes it panic, and that what is valid can be resolved
// and encoded.
func FuzzValidate(f *testing.F) {
	f.Add([]byte(`{"template":"busybox","name":"web","env":["A=1"],"ports":[{"host_port":80,"port":80}]}`))
	f.Add([]byte(`{"template":"x","health":{"test":["CMD-SHELL","true"]},"restart":{"policy":"on-failure","max":3}}`))
	f.Add([]byte(`{"entrypoint":[""],"user":":","stop_signal":"RTMIN+","hostname":"."}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var spec api.Spec
		if json.Unmarshal(data, &spec) != nil {
			return
		}
		if environment.Validate(spec, bounds) != nil {
			return
		}
		r, err := environment.Resolve(spec, "name", api.Template{Config: api.TemplateConfig{Command: []string{"sh"}}})
		if err != nil {
			return
		}
		if len(r.Args) == 0 || r.StopSignal == 0 || r.WorkDir == "" || r.StopGrace < 0 {
			t.Fatalf("resolved to %+v", r)
		}
		if _, err := (environment.Record{Spec: spec, Resolved: r}).Encode(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestResolve(t *testing.T) {
	tmpl := api.Template{Kind: "app", Config: api.TemplateConfig{
		Entrypoint: []string{"/entry"}, Command: []string{"serve", "-v"}, Env: []string{"PATH=/opt/bin", "LANG=C"},
		WorkDir: "/srv", User: "www", StopSignal: "SIGQUIT", Health: &api.Health{Test: []string{"CMD", "check"}, Retries: 7},
	}}
	for name, c := range map[string]struct {
		spec api.Spec
		tmpl api.Template
		want func(environment.Resolved) bool
	}{
		"the template's own": {api.Spec{}, tmpl, func(r environment.Resolved) bool {
			return fmt.Sprint(r.Args) == "[/entry serve -v]" && r.WorkDir == "/srv" && r.User == "www" && r.StopSignal == 3 &&
				r.Hostname == "web" && r.Network == "default" && time.Duration(r.StopGrace) == 10*time.Second
		}},
		"a command keeps the entrypoint": {api.Spec{Command: []string{"a"}}, tmpl, func(r environment.Resolved) bool {
			return fmt.Sprint(r.Args) == "[/entry a]"
		}},
		"an entrypoint drops the command": {api.Spec{Entrypoint: []string{"/e"}}, tmpl, func(r environment.Resolved) bool {
			return fmt.Sprint(r.Args) == "[/e]"
		}},
		"an entrypoint with a command": {api.Spec{Entrypoint: []string{"/e"}, Command: []string{"a"}}, tmpl, func(r environment.Resolved) bool {
			return fmt.Sprint(r.Args) == "[/e a]"
		}},
		"an entrypoint that clears": {api.Spec{Entrypoint: []string{""}, Command: []string{"a"}}, tmpl, func(r environment.Resolved) bool {
			return fmt.Sprint(r.Args) == "[a]"
		}},
		"variables are laid over one another": {api.Spec{Env: []string{"LANG=de", "A=1", "A=2"}}, tmpl, func(r environment.Resolved) bool {
			return fmt.Sprint(r.Env) == "[PATH=/opt/bin HOSTNAME=web LANG=de A=2]"
		}},
		"a terminal has a TERM": {api.Spec{TTY: true}, api.Template{Config: api.TemplateConfig{Command: []string{"sh"}}}, func(r environment.Resolved) bool {
			return fmt.Sprint(r.Env) == "[PATH="+environment.DefaultPath+" HOSTNAME=web TERM=xterm]" && r.Kind == "app" && r.StopSignal == 15
		}},
		"the template's check with a default": {api.Spec{}, tmpl, func(r environment.Resolved) bool {
			return r.Health.Retries == 7 && time.Duration(r.Health.Interval) == 30*time.Second && fmt.Sprint(environment.HealthArgs(r.Health)) == "[check]"
		}},
		"a check in part": {api.Spec{Health: &api.Health{Interval: unit.Duration(time.Second)}}, tmpl, func(r environment.Resolved) bool {
			return r.Health.Retries == 7 && time.Duration(r.Health.Interval) == time.Second
		}},
		"a template's check that would keep the host busy": {api.Spec{}, api.Template{Config: api.TemplateConfig{Command: []string{"sh"},
			Health: &api.Health{Test: []string{"CMD", "check"}, Interval: 1, Timeout: -1, StartPeriod: -1, Retries: -1}}}, func(r environment.Resolved) bool {
			return time.Duration(r.Health.Interval) == time.Second && time.Duration(r.Health.Timeout) == 30*time.Second && r.Health.StartPeriod == 0 && r.Health.Retries == 3
		}},
		"a template's check at a negative interval": {api.Spec{}, api.Template{Config: api.TemplateConfig{Command: []string{"sh"},
			Health: &api.Health{Test: []string{"CMD", "check"}, Interval: -1, Timeout: 1, Retries: 1 << 40}}}, func(r environment.Resolved) bool {
			return time.Duration(r.Health.Interval) == 30*time.Second && time.Duration(r.Health.Timeout) == time.Millisecond && r.Health.Retries == 3
		}},
		"no grace at all": {api.Spec{StopGrace: new(unit.Duration(0))}, tmpl, func(r environment.Resolved) bool { return r.StopGrace == 0 }},
		"a system without a grace": {api.Spec{StopGrace: new(unit.Duration(0))}, api.Template{Kind: "system"}, func(r environment.Resolved) bool {
			return r.StopGrace == 0
		}},
		"no check": {api.Spec{Health: &api.Health{Test: []string{"NONE"}}}, tmpl, func(r environment.Resolved) bool { return r.Health == nil }},
		"a system has an init": {api.Spec{}, api.Template{Kind: "system"}, func(r environment.Resolved) bool {
			return fmt.Sprint(r.Args) == "[/sbin/init]" && r.StopSignal == 38 && time.Duration(r.StopGrace) == 90*time.Second && r.Kind == "system"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := environment.Resolve(c.spec, "web", c.tmpl)
			if err != nil || !c.want(r) {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	for name, c := range map[string]struct {
		spec  api.Spec
		field string
	}{
		"no program at all":      {api.Spec{}, "command"},
		"a system as a user":     {api.Spec{Kind: "system", User: "www"}, "user"},
		"a cleared entrypoint":   {api.Spec{Entrypoint: []string{""}}, "command"},
		"a stop signal too high": {api.Spec{Command: []string{"a"}, StopSignal: "65"}, "stop_signal"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := environment.Resolve(c.spec, "web", api.Template{})
			if all := fault.All(err); len(all) != 1 || all[0].Field != c.field || all[0].Kind != fault.Invalid {
				t.Errorf("%v; want a fault at %s", err, c.field)
			}
		})
	}
}

func TestSignals(t *testing.T) {
	for text, want := range map[string]int{"TERM": 15, "sigterm": 15, "9": 9, "RTMIN+3": 37, "SIGRTMIN+4": 38, "RTMAX": 64, "RTMAX-1": 63, "RTMIN": 34, "winch": 28, "64": 64} {
		if s, err := environment.ParseSignal(text, "signal"); err != nil || int(s) != want {
			t.Errorf("%s is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "0", "65", "-1", "SIG", "RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMIN+", "what", "SIGRTMIN+999999999999"} {
		if s, err := environment.ParseSignal(text, "signal"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is %d, %v; want invalid", text, s, err)
		}
	}
}

func TestRestart(t *testing.T) {
	bad, good := api.Exit{Status: 1}, api.Exit{}
	for _, c := range []struct {
		policy   api.Restart
		exit     api.Exit
		restarts int
		want     bool
	}{
		{api.Restart{}, bad, 0, false},
		{api.Restart{Policy: "no"}, bad, 0, false},
		{api.Restart{Policy: "on-failure"}, bad, 100, true},
		{api.Restart{Policy: "on-failure"}, good, 0, false},
		{api.Restart{Policy: "on-failure", Max: 2}, bad, 1, true},
		{api.Restart{Policy: "on-failure", Max: 2}, bad, 2, false},
		{api.Restart{Policy: "always"}, good, 9, true},
		{api.Restart{Policy: "unless-stopped"}, good, 9, true},
	} {
		if got := environment.WantsRestart(c.policy, c.exit, c.restarts); got != c.want {
			t.Errorf("%+v after %+v and %d: %v", c.policy, c.exit, c.restarts, got)
		}
	}
	hup := api.Exit{Status: 129, Signal: 1}
	if !environment.Rebooted(environment.System, hup) || environment.Rebooted(environment.App, hup) || environment.Rebooted(environment.System, bad) {
		t.Error("an init that asks for a reboot")
	}
	delay, sum := time.Duration(0), time.Duration(0)
	for range 12 {
		delay = environment.NextDelay(delay, time.Second)
		sum += delay
	}
	if delay != time.Minute || sum < time.Minute {
		t.Errorf("the 12th delay is %v", delay)
	}
	if d := environment.NextDelay(delay, 11*time.Second); d != 100*time.Millisecond {
		t.Errorf("after a steady run: %v", d)
	}
	if environment.AfterReboot(api.Restart{Policy: "unless-stopped"}, true) || !environment.AfterReboot(api.Restart{Policy: "always"}, true) {
		t.Error("after a reboot")
	}
}

func TestMadeUpNames(t *testing.T) {
	seen := map[string]bool{}
	for range 5000 {
		name := environment.MakeName(func(n string) bool { return seen[n] })
		if err := environment.CheckName(name, "name"); err != nil || seen[name] {
			t.Fatalf("%q: %v, twice: %v", name, err, seen[name])
		}
		seen[name] = true
	}
	if id := environment.NewID(); !environment.ValidID(id) {
		t.Errorf("%q is no id", id)
	}
}

func TestChangeLeavesTheOldSpec(t *testing.T) {
	memory := unit.Size(64 * unit.MiB)
	old := api.Spec{Labels: map[string]string{"a": "1", "b": "2"}}
	now, err := environment.Change(old, api.Update{Memory: &memory, Labels: map[string]string{"c": "3"}, RemoveLabels: []string{"a"}}, bounds)
	if err != nil || fmt.Sprint(now.Labels) != "map[b:2 c:3]" || now.Resources.Memory != memory {
		t.Errorf("%+v, %v", now, err)
	}
	if fmt.Sprint(old.Labels) != "map[a:1 b:2]" || old.Resources.Memory != 0 {
		t.Errorf("the old spec became %+v", old)
	}
	memory = 1
	if _, err := environment.Change(old, api.Update{Memory: &memory}, bounds); !fault.Is(err, fault.Invalid) {
		t.Errorf("one byte of memory: %v", err)
	}
}
