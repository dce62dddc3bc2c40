package spec

import "github.com/strata-project/strata/internal/keeper/wire"

// ReadInit reads an Init from JSON. A name it does not know is a fault, as the
// writer is of another version then.
func ReadInit(b []byte) (*Init, error) {
	r := &reader{b: b}
	s := new(Init)
	r.object(func(name string) {
		if !r.scalars(s, name) && !r.lists(s, name) {
			r.fail()
		}
	})
	return s, r.end()
}

func (r *reader) scalars(s *Init, name string) bool {
	switch name {
	case "hostname":
		s.Hostname = r.text()
	case "root":
		s.Root = int(r.int())
	case "read_only":
		s.ReadOnly = r.bool()
	case "system":
		s.System = r.bool()
	case "whole":
		s.Whole = r.bool()
	case "main":
		s.Main = r.process()
	case "notify":
		s.Notify = r.text()
	case "seccomp":
		s.Seccomp = r.bytes()
	default:
		return false
	}
	return true
}

func (r *reader) lists(s *Init, name string) bool {
	switch name {
	case "devices":
		s.Devices = r.texts()
	case "cgroups":
		r.array(func() { s.Cgroups = append(s.Cgroups, r.cgroup()) })
	case "tmpfs":
		r.array(func() { s.Tmpfs = append(s.Tmpfs, r.tmpfs()) })
	case "volumes":
		r.array(func() { s.Volumes = append(s.Volumes, r.volume()) })
	case "files":
		r.array(func() { s.Files = append(s.Files, r.file()) })
	case "mask":
		s.Mask = r.texts()
	case "protect":
		s.Protect = r.texts()
	case "open":
		s.Open = r.texts()
	case "sysctls":
		r.array(func() { s.Sysctls = append(s.Sysctls, r.sysctl()) })
	case "keep":
		s.Keep = r.ints()
	case "links":
		r.array(func() { s.Links = append(s.Links, r.pair()) })
	default:
		return false
	}
	return true
}

func (r *reader) texts() (all []string) {
	r.array(func() { all = append(all, r.text()) })
	return all
}

func (r *reader) ints() (all []int) {
	r.array(func() { all = append(all, int(r.int())) })
	return all
}

func (r *reader) pair() (p [2]string) {
	n := 0
	r.array(func() {
		text := r.text()
		if n < len(p) {
			p[n] = text
		}
		n++
	})
	if n != len(p) {
		r.fail()
	}
	return p
}

func (r *reader) cgroup() (c Cgroup) {
	r.object(func(name string) {
		switch name {
		case "name":
			c.Name = r.text()
		case "v2":
			c.V2 = r.bool()
		case "options":
			c.Options = r.text()
		case "writable":
			c.Writable = r.bool()
		default:
			r.fail()
		}
	})
	return c
}

func (r *reader) tmpfs() (t Tmpfs) {
	r.object(func(name string) {
		switch name {
		case "target":
			t.Target = r.text()
		case "size":
			t.Size = r.int()
		case "mode":
			t.Mode = uint32(r.uint())
		case "noexec":
			t.NoExec = r.bool()
		default:
			r.fail()
		}
	})
	return t
}

func (r *reader) volume() (v Volume) {
	r.object(func(name string) {
		switch name {
		case "fd":
			v.FD = int(r.int())
		case "target":
			v.Target = r.text()
		case "dir":
			v.Dir = r.bool()
		default:
			r.fail()
		}
	})
	return v
}

func (r *reader) file() (f File) {
	r.object(func(name string) {
		switch name {
		case "path":
			f.Path = r.text()
		case "data":
			f.Data = r.bytes()
		case "bind":
			f.Bind = r.bool()
		default:
			r.fail()
		}
	})
	return f
}

func (r *reader) sysctl() (s Sysctl) {
	r.object(func(name string) {
		switch name {
		case "path":
			s.Path = r.text()
		case "value":
			s.Value = r.text()
		default:
			r.fail()
		}
	})
	return s
}

// ReadProcess reads a wire.Process from JSON.
func ReadProcess(b []byte) (*wire.Process, error) {
	r := &reader{b: b}
	p := r.process()
	if err := r.end(); err != nil || p == nil {
		return nil, ErrJSON
	}
	return p, nil
}

func (r *reader) process() *wire.Process {
	if r.word("null") {
		return nil
	}
	p := new(wire.Process)
	r.object(func(name string) {
		switch name {
		case "args":
			p.Args = r.texts()
		case "env":
			p.Env = r.texts()
		case "workdir":
			p.WorkDir = r.text()
		case "make_workdir":
			p.MakeWorkDir = r.bool()
		case "user":
			p.User = r.text()
		case "tty":
			p.TTY = r.bool()
		case "stdin":
			p.Stdin = r.bool()
		case "rows":
			p.Rows = uint16(r.uint())
		case "cols":
			p.Cols = uint16(r.uint())
		case "agent":
			p.Agent = r.bool()
		case "capabilities":
			p.Capabilities = r.ints()
		case "no_new_privs":
			p.NoNewPrivs = r.bool()
		case "seccomp":
			p.Seccomp = r.bytes()
		case "rlimits":
			r.array(func() { p.Rlimits = append(p.Rlimits, r.rlimit()) })
		default:
			r.fail()
		}
	})
	return p
}

func (r *reader) rlimit() (l wire.Rlimit) {
	r.object(func(name string) {
		switch name {
		case "type":
			l.Type = int(r.int())
		case "soft":
			l.Soft = r.uint()
		case "hard":
			l.Hard = r.uint()
		default:
			r.fail()
		}
	})
	return l
}

// ReadType reads the type of a wire.Message; the rest of it does not concern a payload.
func ReadType(b []byte) (string, error) {
	r := &reader{b: b}
	var kind string
	r.object(func(name string) {
		if name == "type" {
			kind = r.text()
		} else {
			r.skip()
		}
	})
	return kind, r.end()
}
