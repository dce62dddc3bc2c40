package engine

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/environment"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/unit"
)

// Defaults of what a spec leaves open.
const (
	defaultLogSize  unit.Size = 10 * unit.MiB
	defaultLogFiles           = 3
	consoleSize     unit.Size = unit.MiB
	defaultTmpfs    unit.Size = 64 * unit.MiB
	defaultMode               = 0o1777
)

// plan is all that a run of rec needs.
func (e *Engine) plan(ctx context.Context, rec environment.Record, idle bool) (stratum.Plan, error) {
	if rec.Spec.Foreign != nil {
		return e.planForeign(rec), nil
	}
	t, err := e.o.Templates.Get(rec.TemplateID)
	if err != nil {
		return stratum.Plan{}, fault.Wrap(err, "find the template of %s", rec.Name)
	}
	resolv, err := e.resolvConf(rec)
	if err != nil {
		return stratum.Plan{}, err
	}
	dir := e.store.Dir(rec.ID)
	p := buildPlan(rec, idle, dir)
	p.Files = append(p.Files, stratum.File{Path: "/etc/resolv.conf", Data: resolv})
	for _, l := range t.Layers {
		p.Layers = append(p.Layers, stratum.LayerFile{Digest: l.Digest, Path: e.o.Templates.LayerPath(l.Digest)})
	}
	if rec.Stratum != stratum.Zone {
		p.Whole.Digest, p.Whole.Path, err = e.whole(ctx, t.ID, rec.Spec.Template)
	}
	return p, err
}

// whole returns the layers of the template with that id as one image, and makes it
// where it is missing; what is told of that calls the template name.
func (e *Engine) whole(ctx context.Context, id, name string) (digest, path string, err error) {
	tell := e.progress(ctx)
	return e.o.Templates.Whole(ctx, id, func(p api.Progress) {
		p.Item = "the layers of " + name + " into one image, once"
		if p.Step == "wait" {
			p.Item = "for the layers of " + name + ", which are being merged"
		}
		tell(p)
	})
}

// buildPlan is the part of a plan that the record alone decides. It is pure.
func buildPlan(rec environment.Record, idle bool, dir string) stratum.Plan {
	s, r := rec.Spec, rec.Resolved
	p := stratum.Plan{
		ID: rec.ID, Name: rec.Name, System: r.Kind == environment.System && !idle, Idle: idle,
		Main: stratum.Process{
			Args: r.Args, Env: r.Env, WorkDir: r.WorkDir, User: r.User, TTY: s.TTY, Stdin: s.Stdin,
		},
		Disk: filepath.Join(dir, diskName), IDBase: rec.IDBase, Hostname: r.Hostname,
		Files: []stratum.File{
			{Path: "/etc/hostname", Data: []byte(r.Hostname + "\n")},
			{Path: "/etc/hosts", Data: hostsFile(r.Hostname, rec.Address)},
		},
		Volumes: s.Volumes, Tmpfs: tmpfs(s), Resources: s.Resources, ReadOnly: s.ReadOnly,
		NewPrivileges: s.NewPrivileges || r.Kind == environment.System,
		Log:           stratum.LogPlan{Dir: filepath.Join(dir, logDir), Size: int64(s.Log.Size), Files: s.Log.Files},
	}
	if rec.MachineID != "" && p.System {
		p.Files = append(p.Files, stratum.File{Path: "/etc/machine-id", Data: []byte(rec.MachineID + "\n")})
	}
	p.Kernel, p.Modules, p.Firmware, p.Hardware, p.Cold = s.Kernel, s.Modules, s.Firmware, s.Hardware, s.Cold
	for _, d := range rec.Devices {
		p.Devices = append(p.Devices, device(d))
	}
	if p.Log.Size == 0 {
		p.Log.Size = int64(defaultLogSize)
	}
	if p.Log.Files == 0 {
		p.Log.Files = defaultLogFiles
	}
	p.Console = stratum.LogPlan{Dir: filepath.Join(dir, consoleDir), Size: int64(consoleSize), Files: 2}
	if idle {
		p.Main = stratum.Process{}
		p.Volumes = nil // files are copied in and out of the environment's own disk
		p.Tmpfs = nil
		p.ReadOnly = false
	}
	return p
}

// tmpfs fills in sizes and modes.
func tmpfs(s api.Spec) []api.Tmpfs {
	all := slices.Clone(s.Tmpfs)
	for i := range all {
		if all[i].Size == 0 {
			all[i].Size = defaultTmpfs
			if s.Resources.Memory != 0 {
				all[i].Size = s.Resources.Memory / 2
			}
		}
		if all[i].Mode == 0 {
			all[i].Mode = defaultMode
		}
	}
	return all
}

// hostsFile is /etc/hosts: the loopback, and the environment's own name.
func hostsFile(hostname string, a api.Address) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	names := hostname
	if short, _, dotted := strings.Cut(hostname, "."); dotted {
		names += " " + short
	}
	own := false
	for _, ip := range []string{a.IPv4, a.IPv6} {
		if ip != "" {
			fmt.Fprintf(&b, "%s\t%s\n", bare(ip), names)
			own = true
		}
	}
	if !own {
		fmt.Fprintf(&b, "127.0.1.1\t%s\n", names) // Debian's way for a host without an address
	}
	return b.Bytes()
}

// bare drops the length of a prefix.
func bare(ip string) string {
	ip, _, _ = strings.Cut(ip, "/")
	return ip
}

func (e *Engine) resolvConf(rec environment.Record) ([]byte, error) {
	if rec.Address.Network == "" {
		var b bytes.Buffer
		for _, server := range rec.Spec.DNS {
			fmt.Fprintf(&b, "nameserver %s\n", server)
		}
		return b.Bytes(), nil
	}
	return e.o.Network.ResolvConf(rec.Address, rec.Spec.DNS)
}

// process is a further program inside an environment.
func process(rec environment.Record, p api.Process) stratum.Process {
	env := rec.Resolved.Env
	if p.TTY && !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "TERM=") }) {
		env = environment.MergeEnv(env, []string{"TERM=xterm"})
	}
	out := stratum.Process{
		Args: p.Command, Env: environment.MergeEnv(env, p.Env), WorkDir: p.WorkDir, User: p.User,
		TTY: p.TTY, Stdin: p.Stdin, Rows: p.Rows, Cols: p.Cols,
	}
	if out.WorkDir == "" {
		out.WorkDir = rec.Resolved.WorkDir
	}
	if out.User == "" {
		out.User = rec.Resolved.User
	}
	return out
}
