package cli

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/shortform"
	"github.com/strata-project/strata/internal/unit"
)

// specFlags are the flags of run and create, as they were given.
type specFlags struct {
	spec       api.Spec
	flags      *pflag.FlagSet
	interact   bool
	env        []string
	envFiles   []string
	ports      []string
	volumes    []string
	tmpfs      []string
	labels     []string
	entrypoint string
	restart    string
	settings   []*setting
	grace      string
	health     struct {
		line                                 string
		interval, timeout, startPeriod, none string
		retries                              int
		off                                  bool
	}
	foreign foreignFlags
	pull    string
	quiet   bool
}

func (s *specFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SetInterspersed(false)
	s.flags = f
	f.StringVar(&s.spec.Name, "name", "", "name for life, also its DNS name (default: made up)")
	f.BoolVarP(&s.interact, "interactive", "i", false, "keep standard input open")
	f.BoolVarP(&s.spec.TTY, "tty", "t", false, "give the program a terminal")
	f.BoolVar(&s.spec.AutoRemove, "rm", false, "remove the environment when it ends")
	f.StringArrayVarP(&s.env, "env", "e", nil, "`NAME[=value]` for the environment; without a value yours is handed on")
	f.StringArrayVar(&s.envFiles, "env-file", nil, "`FILE` with a variable on each line")
	f.StringVarP(&s.spec.WorkDir, "workdir", "w", "", "working `directory` inside")
	f.StringVarP(&s.spec.User, "user", "u", "", "`user[:group]` inside, names or ids")
	f.StringArrayVarP(&s.volumes, "volume", "v", nil, "show a folder or file of the host inside: `SRC:DST[:ro]`")
	f.StringArrayVarP(&s.ports, "publish", "p", nil, "publish a port: `[IP:]HOST:PORT[/proto]`, also ranges")
	f.StringVar(&s.spec.Hostname, "hostname", "", "host name inside (default: the name)")
	f.StringArrayVar(&s.spec.DNS, "dns", nil, "`address` of a DNS server instead of strata's own")
	f.StringVar(&s.spec.Network, "network", "", "`name` of a network, or none")
	s.settings = settingFlags(f)
	f.StringArrayVarP(&s.labels, "label", "l", nil, "`NAME[=value]` to find it by")
	f.StringVar(&s.entrypoint, "entrypoint", "", "`program` instead of the template's entrypoint; \"\" for none")
	f.BoolVar(&s.spec.ReadOnly, "read-only", false, "mount the root file system read-only")
	f.StringArrayVar(&s.tmpfs, "tmpfs", nil, "file system in memory: `PATH[:size=,mode=]`")
	f.StringVar(&s.restart, "restart", "", "`policy`: no, on-failure[:N], always, unless-stopped")
	f.StringVar(&s.health.line, "health-cmd", "", "shell `line` that tells whether it is well")
	f.StringVar(&s.health.interval, "health-interval", "", "time between two checks (default 30s)")
	f.StringVar(&s.health.timeout, "health-timeout", "", "time that a check may take (default 30s)")
	f.IntVar(&s.health.retries, "health-retries", 0, "failures in a row that make it unhealthy (default 3)")
	f.StringVar(&s.health.startPeriod, "health-start-period", "", "time in which failures do not count")
	f.BoolVar(&s.health.off, "no-healthcheck", false, "do not run the template's health check")
	f.StringVar(&s.spec.StopSignal, "stop-signal", "", "`signal` that asks it to end (default: the template's, or TERM)")
	f.StringVar(&s.grace, "stop-timeout", "", "`time` from that signal to the kill, such as 10s; 0 kills at once")
	f.StringVar(&s.spec.Kind, "kind", "", "app or system (default: what the template says)")
	f.StringVar(&s.spec.Stratum, "stratum", "", "depth: zone, guest or machine (default: the shallowest that serves the needs)")
	f.StringVar(&s.spec.Kernel, "kernel", "", "`kernel` of a guest or machine: a name or id of `strata kernel ls` (default: the default one)")
	f.StringArrayVar(&s.spec.Modules, "module", nil, "kernel `module` that a guest or machine loads before anything runs")
	f.StringVar(&s.spec.Console, "console", "", "graphical: it is to have a screen and a keyboard, as machines do")
	f.StringVar(&s.spec.Firmware, "firmware", "", "what a machine boots by: bios, uefi or, for foreign systems, secure (default: bios)")
	s.foreign.add(f)
	f.BoolVar(&s.spec.UndoDisk, "undo-disk", false, "forget at every end what was changed on the private disk")
	f.BoolVar(&s.spec.Cold, "cold", false, "boot a guest from the beginning, even where a warm start is possible")
	f.StringArrayVar(&s.spec.Needs, "need", nil, "`reason` to virtualize, such as own-kernel; see strata needs")
	f.BoolVar(&s.spec.Force, "force", false, "take the stratum of --stratum even where it does not serve a need")
	f.BoolVar(&s.spec.NewPrivileges, "new-privileges", false, "let programs gain privileges by set-user-id files")
	f.StringVar(&s.pull, "pull", "", "`when` to fetch the template: always, missing or never (default: missing, if its name names a registry); with never the first guest's kernel is not fetched either")
	f.BoolVarP(&s.quiet, "quiet", "q", false, "say nothing but what was asked for")
}

// build returns the Spec that the flags and arguments ask for; every fault in
// them is reported at once. Kinds: Invalid.
func (s *specFlags) build(args []string) (api.Spec, error) {
	spec := s.spec
	foreign, err := s.foreign.build()
	if err != nil {
		return spec, err
	}
	if foreign == nil {
		spec.Hardware = s.foreign.Hardware
	}
	if spec.Foreign = foreign; foreign == nil || len(args) > 0 {
		if len(args) == 0 {
			return spec, fault.Invalidf("no template was named").At("template").Help("name one, such as busybox; a system of its own has --disk-image or --iso instead")
		}
		spec.Template, spec.Command = args[0], args[1:]
	}
	spec.Stdin = s.interact
	var all []error
	keep := func(err error) { all = append(all, err) }
	keep(s.readEnv(&spec))
	keep(s.readMounts(&spec))
	keep(s.readLimits(&spec))
	keep(s.readHealth(&spec))
	for _, one := range s.ports {
		ports, err := shortform.Port(one)
		keep(err)
		spec.Ports = append(spec.Ports, ports...)
	}
	for _, one := range s.labels {
		name, value, err := parseLabel(one)
		keep(err)
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[name] = value
	}
	if s.restart != "" {
		restart, err := shortform.Restart(s.restart)
		keep(err)
		spec.Restart = restart
	}
	if s.flags.Changed("entrypoint") {
		spec.Entrypoint = []string{s.entrypoint}
	}
	keep(oneOf("kind", spec.Kind, "app", "system"))
	keep(oneOf("stratum", spec.Stratum, strata...))
	keep(oneOf("console", spec.Console, "graphical"))
	keep(oneOf("firmware", spec.Firmware, "bios", "uefi", "secure"))
	keep(oneOf("board", s.foreign.Board, "q35", "pc"))
	keep(oneOf("pull", s.pull, "always", "missing", "never"))
	return spec, fault.Join(all...)
}

func oneOf(field, value string, accepted ...string) error {
	if value == "" {
		return nil
	}
	list := ""
	for i, one := range accepted {
		if one == value {
			return nil
		}
		if i > 0 {
			list += ", "
		}
		list += one
	}
	return fault.Invalidf("%q is not accepted", value).At(field).Help("accepted: %s", list)
}

func (s *specFlags) readEnv(spec *api.Spec) error {
	var list []string
	for _, path := range s.envFiles {
		lines, err := readEnvFile(path)
		if err != nil {
			return err
		}
		list = append(list, lines...)
	}
	env, err := parseEnv(append(list, s.env...), os.LookupEnv)
	spec.Env = env
	return err
}

func (s *specFlags) readMounts(spec *api.Spec) error {
	var all []error
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	for _, one := range s.volumes {
		v, err := shortform.Volume(one, dir)
		all = append(all, err)
		spec.Volumes = append(spec.Volumes, v)
	}
	for _, one := range s.tmpfs {
		t, err := shortform.Tmpfs(one)
		all = append(all, err)
		spec.Tmpfs = append(spec.Tmpfs, t)
	}
	return fault.Join(all...)
}

func (s *specFlags) readLimits(spec *api.Spec) error {
	grace, err := duration("stop-timeout", s.grace)
	if s.grace != "" {
		spec.StopGrace = &grace
	}
	return fault.Join(err, readSettings(s.settings, s.flags, &spec.Resources))
}

func (s *specFlags) readHealth(spec *api.Spec) error {
	h := s.health
	if h.off {
		spec.Health = &api.Health{Test: []string{"NONE"}}
		if h.line != "" {
			return fault.Invalidf("--health-cmd and --no-healthcheck exclude each other").At("health-cmd")
		}
		return nil
	}
	asked := false
	for _, flag := range []string{"health-cmd", "health-interval", "health-timeout", "health-retries", "health-start-period"} {
		asked = asked || s.flags.Changed(flag)
	}
	if !asked {
		return nil
	}
	var made api.Health
	if h.line != "" {
		made.Test = []string{"CMD-SHELL", h.line}
	}
	var errs [3]error
	made.Interval, errs[0] = duration("health-interval", h.interval)
	made.Timeout, errs[1] = duration("health-timeout", h.timeout)
	made.StartPeriod, errs[2] = duration("health-start-period", h.startPeriod)
	made.Retries = h.retries
	spec.Health = &made
	return fault.Join(errs[:]...)
}

// duration reads a flag; an empty one is zero.
func duration(flag, text string) (unit.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := unit.ParseDuration(text)
	if err == nil && d < 0 {
		err = fault.Invalidf("%q lies in the past", text).Help("write a duration such as 10s")
	}
	return d, at(flag, err)
}

// at names the flag that a fault came from.
func at(flag string, err error) error {
	if err == nil {
		return nil
	}
	return fault.All(err)[0].At(flag)
}

// graceOf reads a --time flag: nil where it was not given.
func graceOf(text string) (*time.Duration, error) {
	if text == "" {
		return nil, nil
	}
	d, err := duration("time", text)
	grace := time.Duration(d)
	return &grace, err
}
