package stratum

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// Check finds what no stratum can start of p, all of it at once. Kinds: Invalid.
func (p Plan) Check() error {
	var errs []error
	if p.ID == "" || p.ID != path.Base(p.ID) || p.ID == "." || p.ID == ".." {
		errs = append(errs, fault.Invalidf("%q is no id of a run", p.ID))
	}
	if !p.Idle && len(p.Main.Args) == 0 {
		errs = append(errs, fault.Invalidf("there is no command to run").At("command").Help("name one, or use a template that has one"))
	}
	for i, v := range p.Volumes {
		if !isPlace(v.Target) {
			errs = append(errs, fault.Invalidf("%q is no place for volume %d", v.Target, i+1).At("volumes").Help("write an absolute path other than /"))
		}
	}
	for _, t := range p.Tmpfs {
		if !isPlace(t.Target) {
			errs = append(errs, fault.Invalidf("%q is no place for a tmpfs", t.Target).At("tmpfs").Help("write an absolute path other than /"))
		}
	}
	return fault.Join(errs...)
}

func isPlace(target string) bool { return path.IsAbs(target) && path.Clean(target) != "/" }

// OuterFirst sorts mounts so that none hides another, whatever order they were asked in.
func OuterFirst[M any](mounts []M, target func(M) string) {
	depth := func(m M) int { return strings.Count(path.Clean(target(m)), "/") }
	slices.SortStableFunc(mounts, func(a, b M) int { return cmp.Compare(depth(a), depth(b)) })
}

// defaultPath is what an init gets whose template names no PATH.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Init returns p's main program as the template's own init gets it, with env before its
// variables.
func (p Plan) Init(env ...string) Process {
	main := p.Main
	main.TTY = true // its console: an init without one has nowhere to report to
	main.User, main.WorkDir = "", "/"
	main.Env = slices.Concat(env, main.Env)
	if !slices.ContainsFunc(main.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		main.Env = append(main.Env, defaultPath)
	}
	return main
}
