package environment

import (
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// The kinds of environment.
const (
	App    = "app"
	System = "system"
)

// DefaultPath is the PATH where neither the spec nor the template has one.
// Source: docker's documentation of `docker run`, "Environment variables".
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Defaults.
const (
	DefaultNetwork     = "default"
	NoNetwork          = "none"
	DefaultGrace       = 10 * time.Second
	DefaultSystemGrace = 90 * time.Second
	DefaultInit        = "/sbin/init"
	// SystemStop is what a template's init takes as a request to power off: RTMIN+4.
	// Source: systemd(1), "Signals".
	SystemStop = syscall.Signal(38)
)

// Resolved is what a spec means once its template is known.
type Resolved struct {
	Kind       string         `json:"kind"`
	Args       []string       `json:"args"` // of the main program
	Env        []string       `json:"env"`  // complete, but for HOME
	WorkDir    string         `json:"workdir"`
	User       string         `json:"user"` // "": root
	Hostname   string         `json:"hostname"`
	Network    string         `json:"network"`
	StopSignal syscall.Signal `json:"stop_signal"`
	StopGrace  unit.Duration  `json:"stop_grace"`
	Health     *api.Health    `json:"health,omitempty"` // with all defaults filled in; nil: none
	Exposed    []string       `json:"exposed,omitempty"`
	Format     string         `json:"format,omitempty"` // of a foreign system's disk image, as it was found
}

// Resolve works out what spec, which is valid and has its name, means with
// template t. Kinds: Invalid, with all faults.
func Resolve(spec api.Spec, name string, t api.Template) (Resolved, error) {
	c := t.Config
	r := Resolved{
		Kind:     first(spec.Kind, t.Kind, App),
		WorkDir:  first(spec.WorkDir, c.WorkDir, "/"),
		User:     first(spec.User, c.User),
		Hostname: first(spec.Hostname, name),
		Network:  first(spec.Network, DefaultNetwork),
		Exposed:  c.Ports,
	}
	var bad []error
	if spec.Foreign != nil {
		r.Kind, r.WorkDir = Foreign, ""
		r.StopSignal = syscall.SIGTERM // the power button
		r.StopGrace = grace(spec.StopGrace, DefaultSystemGrace)
		r.Health = health(spec.Health, nil)
		return r, nil
	}
	if r.Kind == System {
		r.Args = systemArgs(spec, c)
		if spec.User != "" && !rootUser(spec.User) {
			bad = append(bad, fault.Invalidf("the init of kind system runs as root, not as %q", clip(spec.User)).At("user").Help("leave it out, or use kind app"))
		}
		r.User = ""
	} else {
		r.Args = appArgs(spec, c)
	}
	if len(r.Args) == 0 {
		bad = append(bad, fault.Invalidf("no command was given and the template has none").At("command").Help("name the program to run"))
	}
	r.Env = mergeEnv(spec, c, r)
	var err error
	if r.StopSignal, err = stopSignal(spec, c, r.Kind); err != nil {
		bad = append(bad, err)
	}
	r.StopGrace = grace(spec.StopGrace, DefaultGrace)
	if r.Kind == System {
		r.StopGrace = grace(spec.StopGrace, DefaultSystemGrace)
	}
	r.Health = health(spec.Health, c.Health)
	return r, fault.Join(bad...)
}

// grace is what was asked for, which may be none at all, or else the usual one.
func grace(asked *unit.Duration, usual time.Duration) unit.Duration {
	if asked != nil {
		return *asked
	}
	return unit.Duration(usual)
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

func rootUser(user string) bool {
	return slices.Contains([]string{"root", "0", "root:root", "0:0", "root:0", "0:root"}, user)
}

// Defaults are those of a template that is made of an environment: what was asked for in place
// of c, which its own template says.
func Defaults(spec api.Spec, c api.TemplateConfig) api.TemplateConfig {
	c.Entrypoint, c.Command = program(spec, c)
	c.Env = MergeEnv(c.Env, spec.Env)
	c.WorkDir, c.User, c.StopSignal = first(spec.WorkDir, c.WorkDir), first(spec.User, c.User), first(spec.StopSignal, c.StopSignal)
	if spec.Health != nil {
		if c.Health = health(spec.Health, c.Health); c.Health == nil {
			c.Health = &api.Health{Test: []string{noTest}}
		}
	}
	return c
}

// program follows docker: a new entrypoint drops the template's command; one
// empty string as entrypoint clears it.
func program(spec api.Spec, c api.TemplateConfig) (entrypoint, command []string) {
	entrypoint, command = spec.Entrypoint, spec.Command
	if len(entrypoint) == 0 {
		entrypoint = c.Entrypoint
		if len(command) == 0 {
			command = c.Command
		}
	} else if len(entrypoint) == 1 && entrypoint[0] == "" {
		entrypoint = nil
	}
	return entrypoint, command
}

func appArgs(spec api.Spec, c api.TemplateConfig) []string {
	return slices.Concat(program(spec, c))
}

// systemArgs is the template's init, where nothing else is said.
func systemArgs(spec api.Spec, c api.TemplateConfig) []string {
	if len(spec.Entrypoint)+len(spec.Command) == 0 && len(c.Entrypoint)+len(c.Command) == 0 {
		return []string{DefaultInit}
	}
	return appArgs(spec, c)
}

// mergeEnv lays the spec's variables over the template's and those over the
// defaults. The order of first mention is kept, the last value counts.
func mergeEnv(spec api.Spec, c api.TemplateConfig, r Resolved) []string {
	env := []string{"PATH=" + DefaultPath, "HOSTNAME=" + r.Hostname}
	if r.Kind == System {
		// Source: systemd.io/CONTAINER_INTERFACE: the init learns that it is in one.
		env = append(env, "container=strata")
	}
	if spec.TTY {
		env = append(env, "TERM=xterm")
	}
	return MergeEnv(MergeEnv(env, c.Env), spec.Env)
}

// MergeEnv returns base with the variables of over set; entries of over without
// '=' are dropped. Neither argument is changed.
func MergeEnv(base, over []string) []string {
	out := slices.Clone(base)
	at := make(map[string]int, len(out)+len(over))
	for i, e := range out {
		name, _, _ := strings.Cut(e, "=")
		at[name] = i
	}
	for _, e := range over {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			continue
		}
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}

func stopSignal(spec api.Spec, c api.TemplateConfig, kind string) (syscall.Signal, error) {
	switch {
	case spec.StopSignal != "":
		return ParseSignal(spec.StopSignal, "stop_signal")
	case c.StopSignal != "":
		sig, err := ParseSignal(c.StopSignal, "template")
		return sig, fault.Wrap(err, "the template's stop signal")
	case kind == System:
		return SystemStop, nil
	}
	return syscall.SIGTERM, nil
}

// The defaults of a health check. Source: docker's documentation of HEALTHCHECK.
const (
	healthInterval = 30 * time.Second
	healthTimeout  = 30 * time.Second
	healthRetries  = 3
	// healthFloor is how often a template may have itself checked, at most: each
	// check costs the host, outside of the environment's limits.
	healthFloor = time.Second
)

// noTest is docker's word for no health check.
const noTest = "NONE"

// health fills in defaults; what the spec leaves open comes from the template.
func health(asked, template *api.Health) *api.Health {
	var h api.Health
	if template != nil {
		h = fromTemplate(*template)
	}
	if asked != nil {
		if len(asked.Test) > 0 {
			h.Test = asked.Test
		}
		h.Interval = or(asked.Interval, h.Interval)
		h.Timeout = or(asked.Timeout, h.Timeout)
		h.StartPeriod = or(asked.StartPeriod, h.StartPeriod)
		h.Retries = or(asked.Retries, h.Retries)
	}
	if len(h.Test) == 0 || h.Test[0] == noTest || checkTest(h.Test) != "" {
		return nil // a template's malformed test is none: its environment can still run
	}
	h.Interval = or(h.Interval, unit.Duration(healthInterval))
	h.Timeout = or(h.Timeout, unit.Duration(healthTimeout))
	h.Retries = or(h.Retries, healthRetries)
	return &h
}

// fromTemplate takes what makes no sense for what was not said: a template is hostile.
func fromTemplate(h api.Health) api.Health {
	if h.Interval > 0 {
		h.Interval = max(h.Interval, unit.Duration(healthFloor))
	}
	h.Interval, h.Timeout, h.StartPeriod = max(h.Interval, 0), max(h.Timeout, 0), max(h.StartPeriod, 0)
	if h.Timeout > 0 {
		h.Timeout = max(h.Timeout, minSpan)
	}
	if h.Retries < 0 || h.Retries > maxRetries {
		h.Retries = 0
	}
	return h
}

func or[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}

// HealthArgs returns the program that a resolved check runs.
func HealthArgs(h *api.Health) []string {
	if h.Test[0] == "CMD-SHELL" {
		return []string{"/bin/sh", "-c", h.Test[1]}
	}
	return h.Test[1:]
}
