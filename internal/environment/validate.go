package environment

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// Bounds are those of what environments are made with.
type Bounds struct {
	DiskFloor   unit.Size // 0: none
	DiskCeiling unit.Size // 0: none
}

// Bounds that are this package's own.
const (
	PIDFloor               = 12           // the agent's threads, up to 9 of them, and a few processes
	MemoryFloor  unit.Size = 6 * unit.MiB // docker's, below which the kernel kills a program before it runs
	TmpfsFloor   unit.Size = 4 * unit.KiB // one page
	LogFloor     unit.Size = 64 * unit.KiB
	CPUFloor     unit.CPUs = 10        // thousandths; the kernel's quota has a floor of 1 ms in 100 ms
	MaxArgument            = 128 << 10 // of one argument or variable. Source: linux/binfmts.h, MAX_ARG_STRLEN
	MaxArguments           = 1 << 20   // of all of them, half of the kernel's usual bound of 2 MiB. Source: execve(2)
	maxLabel               = 4096
	minSpan                = unit.Duration(1e6) // of a health check's times: 1 ms, as docker has it
	maxRetries             = 1000
)

// check gathers faults.
type check struct{ bad []error }

func (c *check) fault(field, format string, args ...any) *fault.Error {
	e := fault.Invalidf(format, args...).At(field)
	c.bad = append(c.bad, e)
	return e
}

func (c *check) add(err error) {
	if err != nil {
		c.bad = append(c.bad, err)
	}
}

// Validate tells all that is wrong with spec by itself. Kinds: Invalid.
func Validate(spec api.Spec, b Bounds) error {
	var c check
	c.identity(spec)
	c.program(spec)
	c.resources(spec.Resources, b)
	c.mounts(spec)
	c.network(spec)
	c.ending(spec)
	c.labels(spec.Labels)
	return fault.Join(c.bad...)
}

// ValidateNew is Validate for a spec that no environment has yet: it also refuses what would
// be without effect, which is no reason not to go on with one that is kept. Kinds: Invalid.
func ValidateNew(spec api.Spec, b Bounds) error {
	var c check
	field, most := "hardware.memory_max", spec.Hardware.MemoryMax
	if spec.Foreign != nil {
		field, most = "foreign.memory_max", spec.Foreign.MemoryMax
	}
	if has := spec.Resources.Memory; most > 0 && has > 0 && most <= has {
		c.fault(field, "memory can be raised to %s while it runs, and it has %s from the start", most, has).Help("say more than %s, or leave it out", has)
	}
	return fault.Join(Validate(spec, b), fault.Join(c.bad...))
}

func (c *check) identity(spec api.Spec) {
	if spec.Name != "" {
		c.add(CheckName(spec.Name, "name"))
	}
	switch {
	case spec.Foreign != nil:
		c.foreign(spec)
	case spec.Template == "":
		c.fault("template", "no template was named").Help("name one, such as busybox; `strata template ls` lists them; a system of its own has --disk-image or --iso instead")
	case len(spec.Template) > 512:
		c.fault("template", "the template's name is longer than 512 bytes")
	}
	c.hardware("hardware.", spec.Hardware)
	c.oneOf("kind", spec.Kind, App, System)
	c.oneOf("stratum", spec.Stratum, "zone", "guest", "machine")
	c.oneOf("console", spec.Console, "graphical")
	for i, name := range spec.Modules {
		if !moduleName(name) {
			c.fault(index("modules", i), "%q cannot be a kernel module", clip(name)).Help("use its name, such as nf_tables: up to 63 letters, digits, '_' and '-'")
		}
	}
	c.oneOf("firmware", spec.Firmware, "bios", "uefi", "secure")
	if spec.Hostname != "" && !hostname(spec.Hostname) {
		c.fault("hostname", "%q cannot be a host name", clip(spec.Hostname)).Help("use up to 63 letters, digits, '-' and '.'")
	}
}

func (c *check) oneOf(field, got string, words ...string) {
	if got != "" && !slices.Contains(words, got) {
		c.fault(field, "%q is not known", clip(got)).Help("use one of: %s", strings.Join(words, ", "))
	}
}

func moduleName(s string) bool {
	return s != "" && len(s) < 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

func hostname(s string) bool {
	if len(s) > 63 {
		return false
	}
	for _, part := range strings.Split(strings.ToLower(s), ".") {
		if !label(part) {
			return false
		}
	}
	return true
}

func (c *check) program(spec api.Spec) {
	c.words("entrypoint", spec.Entrypoint)
	c.words("command", spec.Command)
	for i, word := range spec.Entrypoint {
		if word == "" && (i > 0 || len(spec.Entrypoint) > 1) {
			c.fault(index("entrypoint", i), "it is empty").Help("a single empty word clears the template's entrypoint")
		}
	}
	if len(spec.Entrypoint) == 0 && len(spec.Command) > 0 && spec.Command[0] == "" {
		c.fault("command[0]", "the program's name is empty").Help("name the program to run")
	}
	c.env(spec.Env)
	if spec.WorkDir != "" {
		c.absolute("workdir", spec.WorkDir)
	}
	c.user(spec.User)
}

// CheckProcess tells what is wrong with a further program. Kinds: Invalid.
func CheckProcess(p api.Process) error {
	var c check
	if len(p.Command) == 0 || p.Command[0] == "" {
		c.fault("command", "no program was named").Help("name the program to run")
	}
	c.words("command", p.Command)
	c.env(p.Env)
	if p.WorkDir != "" {
		c.absolute("workdir", p.WorkDir)
	}
	c.user(p.User)
	return fault.Join(c.bad...)
}

func (c *check) words(field string, words []string) {
	total := 0
	for i, w := range words {
		total += len(w)
		if strings.IndexByte(w, 0) >= 0 {
			c.fault(index(field, i), "it has a zero byte in it")
		}
		if len(w) >= MaxArgument {
			c.fault(index(field, i), "%q is longer than %d bytes", clip(w), MaxArgument-1).Help("put what is large into a file")
		}
	}
	if total > MaxArguments {
		c.fault(field, "all words together are longer than %d bytes", MaxArguments).Help("put what is large into a file")
	}
}

func (c *check) env(env []string) {
	c.words("env", env)
	for i, e := range env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			c.fault(index("env", i), "%q is not NAME=value", clip(e)).Help("write NAME=value; NAME= sets it to nothing")
		}
	}
}

func (c *check) absolute(field, p string) bool {
	switch {
	case !strings.HasPrefix(p, "/"):
		c.fault(field, "%q is not an absolute path", clip(p)).Help("begin it with /")
	case strings.IndexByte(p, 0) >= 0:
		c.fault(field, "it has a zero byte in it")
	case len(p) >= 4096: // linux/limits.h, PATH_MAX
		c.fault(field, "it is longer than 4095 bytes")
	default:
		return true
	}
	return false
}

func (c *check) user(user string) {
	if user == "" {
		return
	}
	name, group, grouped := strings.Cut(user, ":")
	ok := func(s string) bool {
		return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ':' || r == ',' || r == '/' })
	}
	if !ok(name) || grouped && !ok(group) || len(user) > 256 {
		c.fault("user", "%q is not a user", clip(user)).Help("write user or user:group, names or numbers, such as 1000:1000")
	}
}

// resources checks limits.
func (c *check) resources(r api.Resources, b Bounds) {
	if r.Memory != 0 && r.Memory < MemoryFloor {
		c.fault("resources.memory", "%s of memory is less than a program can start in", r.Memory).Help("give at least %s", MemoryFloor)
	}
	if r.CPUs != 0 && (r.CPUs < CPUFloor || r.CPUs > unit.MaxCPUs*1000) {
		c.fault("resources.cpus", "%s is not a number of processors", r.CPUs).Help("give %s to %d", CPUFloor, unit.MaxCPUs)
	}
	switch {
	case r.PIDs < 0 || r.PIDs > 4194304: // linux/threads.h, PID_MAX_LIMIT
		c.fault("resources.pids", "%d is not a number of processes", r.PIDs).Help("give %d to 4194304, or 0 for no limit", PIDFloor)
	case r.PIDs != 0 && r.PIDs < PIDFloor:
		c.fault("resources.pids", "%d processes are fewer than a program can start with", r.PIDs).Help("give at least %d: the agent's threads count too", PIDFloor)
	}
	c.shares(r)
	if h := r.HugePages; h != 0 && h != 2*unit.MiB && h != unit.GiB {
		c.fault("resources.hugepages", "there are no huge pages of %s", h).Help("give 2M or 1G")
	}
	if r.CPUSet != "" && r.CPUSet != api.AllCPUs {
		if _, err := unit.ParseList(r.CPUSet); err != nil {
			c.add(fault.All(err)[0].At("resources.cpuset_cpus"))
		}
	}
	if r.Disk != 0 && r.Disk < b.DiskFloor {
		c.fault("resources.disk", "a disk of %s is too small", r.Disk).Help("give at least %s", b.DiskFloor)
	}
	if b.DiskCeiling != 0 && r.Disk > b.DiskCeiling {
		c.fault("resources.disk", "a disk of %s is too large", r.Disk).Help("give at most %s", b.DiskCeiling)
	}
}

// MostWeight is the largest weight. Source: Documentation/admin-guide/cgroup-v2.rst, cpu.weight.
const MostWeight = 10000

// shares checks guarantees, weights and rates.
func (c *check) shares(r api.Resources) {
	c.rates(r)
	if r.MemoryGuarantee < 0 || r.Memory != 0 && r.MemoryGuarantee > r.Memory {
		c.fault("resources.memory_guarantee", "a guarantee of %s is above the limit of %s", r.MemoryGuarantee, r.Memory).Help("lower it, or raise the limit: --memory")
	}
	if r.CPUGuarantee != 0 && (r.CPUGuarantee < CPUFloor || r.CPUGuarantee > unit.MaxCPUs*1000) {
		c.fault("resources.cpu_guarantee", "%s is not a number of processors", r.CPUGuarantee).Help("give %s to %d", CPUFloor, unit.MaxCPUs)
	} else if r.CPUs != 0 && r.CPUGuarantee > r.CPUs {
		c.fault("resources.cpu_guarantee", "a guarantee of %s is above the limit of %s", r.CPUGuarantee, r.CPUs).Help("lower it, or raise the limit: --cpus")
	}
	if r.Swap != nil && *r.Swap < 0 {
		c.fault("resources.swap", "%d bytes of swap space are not possible", *r.Swap).Help("give a size; 0 for none")
	} else if r.Swap != nil && r.Memory == 0 {
		c.fault("resources.swap", "swap space is limited besides memory, which has no limit").Help("give --memory as well")
	}
	for field, weight := range map[string]int64{"cpu_weight": r.CPUWeight, "io_weight": r.IOWeight} {
		if weight < 0 || weight > MostWeight {
			c.fault("resources."+field, "a weight of %d is out of range", weight).Help("give 1 to %d; the default is 100", MostWeight)
		}
	}
	for field, rate := range map[string]unit.Size{"io_read": r.IORead, "io_write": r.IOWrite} {
		if rate != 0 && rate < LeastIORate {
			c.fault("resources."+field, "%d bytes in a second are too few: others would wait for what is read of files that they share", int64(rate)).
				Help("give at least %s; 0 for no limit", LeastIORate)
		}
	}
	for field, rate := range map[string]int64{"io_read_ops": r.IOReadOps, "io_write_ops": r.IOWriteOps} {
		if rate != 0 && rate < LeastIOOps {
			c.fault("resources."+field, "%d in a second are too few: others would wait for what is read of files that they share", rate).
				Help("give at least %d; 0 for no limit", LeastIOOps)
		}
	}
}

// The least rates of disks. Who reads a page of a file holds it until it is there, for its limit
// as long as that takes; who shares the file, as all of a template do, waits for the page.
const (
	LeastIORate unit.Size = 1 << 20
	LeastIOOps            = 10
)

func (c *check) mounts(spec api.Spec) {
	seen := map[string]string{}
	target := func(field, p string) {
		if !c.absolute(field, p) {
			return
		}
		p = path.Clean(p)
		switch p {
		case "/", "/proc", "/sys", "/dev":
			c.fault(field, "nothing can be mounted over %s", p).Help("use a folder below it or elsewhere")
			return
		}
		if other := seen[p]; other != "" {
			c.fault(field, "%s is the target of %s as well", p, other).Help("give each its own target")
			return
		}
		seen[p] = strings.TrimSuffix(field, ".target")
	}
	for i, v := range spec.Volumes {
		field := index("volumes", i)
		c.absolute(field+".source", v.Source)
		target(field+".target", v.Target)
	}
	for i, t := range spec.Tmpfs {
		field := index("tmpfs", i)
		target(field+".target", t.Target)
		if t.Size < 0 || t.Size != 0 && t.Size < TmpfsFloor {
			c.fault(field+".size", "%d bytes are too few", int64(t.Size)).Help("give at least %s", TmpfsFloor)
		}
		if t.Mode > 0o7777 {
			c.fault(field+".mode", "%o are not permission bits", t.Mode).Help("give an octal number up to 7777")
		}
	}
}

// Bounds of a rate of the network. Below the least, a connection's own
// acknowledgements hardly pass; the most is what the kernel can count for.
// Source: net/netfilter/nft_limit.c, nft_limit_init (2^63 billionths).
const (
	LeastNetRate unit.Size = 4 << 10
	MostNetRate  unit.Size = 8 << 30
)

// rates checks those of the network.
func (c *check) rates(r api.Resources) {
	for field, rate := range map[string]unit.Size{"net_in": r.NetIn, "net_out": r.NetOut} {
		if rate != 0 && (rate < LeastNetRate || rate > MostNetRate) {
			c.fault("resources."+field, "%d bytes in a second are out of range", int64(rate)).Help("give %s to %s; 0 for no limit", LeastNetRate, MostNetRate)
		}
	}
}

// limitless refuses rates where there is no network.
func (c *check) limitless(spec api.Spec) {
	if spec.Network == NoNetwork && spec.Resources.NetIn+spec.Resources.NetOut != 0 {
		c.fault("resources.net_in", "without a network there is no rate to limit").Help("leave --network none out, or --net-in and --net-out")
	}
}

func (c *check) network(spec api.Spec) {
	c.limitless(spec)
	if spec.Network != "" {
		c.add(CheckName(spec.Network, "network"))
	}
	for i, address := range spec.DNS {
		if a, err := netip.ParseAddr(address); err != nil || a.Zone() != "" {
			c.fault(index("dns", i), "%q is not an address", clip(address)).Help("write an IPv4 or IPv6 address, such as 192.0.2.53")
		}
	}
	if spec.Network == NoNetwork && len(spec.Ports) > 0 {
		c.fault("ports", "without a network no port can be published").Help("leave --network none out, or the ports")
	}
	for i, p := range spec.Ports {
		field := index("ports", i)
		c.port(field, p)
		for j := range i {
			if PortsMeet(p, spec.Ports[j]) {
				c.fault(field, "host port %s is published twice, here and in ports[%d]", PortName(p), j).Help("give each its own host port")
				break
			}
		}
	}
}

func (c *check) port(field string, p api.Port) {
	if p.HostPort == 0 {
		c.fault(field+".host_port", "0 is not a port").Help("give 1 to 65535")
	}
	if p.Port == 0 {
		c.fault(field+".port", "0 is not a port").Help("give 1 to 65535")
	}
	c.oneOf(field+".protocol", p.Protocol, "tcp", "udp")
	if p.HostIP != "" {
		a, err := netip.ParseAddr(p.HostIP)
		switch {
		case err != nil || a.Zone() != "":
			c.fault(field+".host_ip", "%q is not an address", clip(p.HostIP)).Help("write an address of the host, or leave it out for all")
		case a == netip.IPv6Loopback(): // Linux routes no packets of it off the loopback link
			c.fault(field+".host_ip", "nothing can be published on ::1").Help("publish on 127.0.0.1, or on all addresses")
		}
	}
}

// PortsMeet tells whether two published ports cannot both be had on one host.
func PortsMeet(a, b api.Port) bool {
	if a.HostPort != b.HostPort || protocol(a) != protocol(b) {
		return false
	}
	one, errA := netip.ParseAddr(a.HostIP)
	two, errB := netip.ParseAddr(b.HostIP)
	if errA != nil || errB != nil {
		return true // none given: all addresses
	}
	one, two = one.Unmap(), two.Unmap()
	if one.Is4() != two.Is4() {
		return false
	}
	return one == two || one.IsUnspecified() || two.IsUnspecified()
}

func protocol(p api.Port) string { return first(p.Protocol, "tcp") }

// PortName writes a host port for a message, such as 127.0.0.1:80/tcp.
func PortName(p api.Port) string {
	name := fmt.Sprintf("%d/%s", p.HostPort, protocol(p))
	if p.HostIP != "" {
		name = p.HostIP + ":" + name
	}
	return name
}

func (c *check) ending(spec api.Spec) {
	if spec.StopSignal != "" {
		_, err := ParseSignal(spec.StopSignal, "stop_signal")
		c.add(err)
	}
	if g := spec.StopGrace; g != nil && *g < 0 {
		c.fault("stop_grace", "%s is negative", *g)
	}
	c.restart(spec.Restart, spec.AutoRemove)
	c.health(spec.Health)
	if spec.Log.Size != 0 && spec.Log.Size < LogFloor {
		c.fault("log.size", "%s is too small for a log", spec.Log.Size).Help("give at least %s", LogFloor)
	}
	if spec.Log.Files < 0 || spec.Log.Files > 100 {
		c.fault("log.files", "%d is not a number of files", spec.Log.Files).Help("give 1 to 100")
	}
}

func (c *check) restart(r api.Restart, autoRemove bool) {
	c.oneOf("restart.policy", r.Policy, RestartNo, RestartOnFailure, RestartAlways, RestartUnlessStopped)
	if r.Max != 0 && r.Policy != RestartOnFailure {
		c.fault("restart.max", "a bound of restarts goes with the policy on-failure only").Help("use on-failure:%d, or leave the bound out", r.Max)
	}
	if r.Max < 0 {
		c.fault("restart.max", "%d is negative", r.Max)
	}
	if autoRemove && r.Policy != "" && r.Policy != RestartNo {
		c.fault("auto_remove", "what is removed when it ends cannot be started again").Help("leave out one of auto_remove and restart")
	}
}

func (c *check) health(h *api.Health) {
	if h == nil {
		return
	}
	if len(h.Test) > 0 {
		if why := checkTest(h.Test); why != "" {
			c.fault("health.test", "%s", why).Help("write NONE, CMD and the words of a command, or CMD-SHELL and one line")
		}
		c.words("health.test", h.Test)
	}
	for _, d := range []struct {
		field string
		span  unit.Duration
	}{{"interval", h.Interval}, {"timeout", h.Timeout}, {"start_period", h.StartPeriod}} {
		if d.span != 0 && d.span < minSpan {
			c.fault("health."+d.field, "%s is less than 1ms", d.span).Help("give at least 1ms")
		}
	}
	if h.Retries < 0 || h.Retries > maxRetries {
		c.fault("health.retries", "%d is not a number of retries", h.Retries).Help("give 1 to 1000")
	}
}

// checkTest says what is wrong with the words of a health check, "" for nothing.
func checkTest(test []string) string {
	switch test[0] {
	case "NONE":
		if len(test) > 1 {
			return "NONE takes no further words"
		}
	case "CMD":
		if len(test) < 2 || test[1] == "" {
			return "CMD is followed by no command"
		}
	case "CMD-SHELL":
		if len(test) != 2 || test[1] == "" {
			return "CMD-SHELL wants exactly one line"
		}
	default:
		return fmt.Sprintf("%q is not how a check begins", clip(test[0]))
	}
	return ""
}

func (c *check) labels(labels map[string]string) {
	if len(labels) > 1024 {
		c.fault("labels", "%d labels are more than 1024", len(labels))
	}
	for key, value := range labels {
		if key == "" || len(key) > maxLabel || len(value) > maxLabel || strings.ContainsAny(key, "=\x00") {
			c.fault("labels", "%q is not a label", clip(key)).Help("write KEY=value, each of at most %d bytes, KEY without '='", maxLabel)
		}
	}
}

func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
