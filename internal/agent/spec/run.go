package spec

import vm "github.com/strata-project/strata/internal/vmagent/spec"

// ReadRun reads what the agent of a guest is told, as ReadInit reads what that of a
// zone is. The bytes that it holds are copies.
func ReadRun(b []byte) (*vm.Run, error) {
	r := &reader{b: b}
	s := new(vm.Run)
	r.object(func(name string) {
		if !r.runScalars(s, name) && !r.runLists(s, name) {
			r.fail()
		}
	})
	return s, r.end()
}

func (r *reader) runScalars(s *vm.Run, name string) bool {
	switch name {
	case "hostname":
		s.Hostname = r.text()
	case "system":
		s.System = r.bool()
	case "rehearsal":
		s.Rehearsal = r.bool()
	case "idle":
		s.Idle = r.bool()
	case "read_only":
		s.ReadOnly = r.bool()
	case "template":
		s.Template = r.text()
	case "disk":
		s.Disk = r.text()
	case "memory":
		s.Memory = r.int()
	case "pids":
		s.PIDs = r.int()
	case "main":
		s.Main = r.process()
	case "clock":
		s.Clock = r.int()
	case "entropy":
		s.Entropy = r.bytes()
	default:
		return false
	}
	return true
}

func (r *reader) runLists(s *vm.Run, name string) bool {
	switch name {
	case "files":
		r.array(func() { s.Files = append(s.Files, r.runFile()) })
	case "tmpfs":
		r.array(func() { s.Tmpfs = append(s.Tmpfs, r.runTmpfs()) })
	case "volumes":
		r.array(func() { s.Volumes = append(s.Volumes, r.runVolume()) })
	case "modules":
		r.array(func() { s.Modules = append(s.Modules, r.text()) })
	case "network":
		s.Network = r.network()
	default:
		return false
	}
	return true
}

func (r *reader) runFile() (f vm.File) {
	r.object(func(name string) {
		switch name {
		case "path":
			f.Path = r.text()
		case "data":
			f.Data = r.bytes()
		default:
			r.fail()
		}
	})
	return f
}

func (r *reader) runTmpfs() (t vm.Tmpfs) {
	r.object(func(name string) {
		switch name {
		case "target":
			t.Target = r.text()
		case "size":
			t.Size = r.int()
		case "mode":
			t.Mode = uint32(r.uint())
		case "no_exec":
			t.NoExec = r.bool()
		default:
			r.fail()
		}
	})
	return t
}

func (r *reader) runVolume() (v vm.Volume) {
	r.object(func(name string) {
		switch name {
		case "tag":
			v.Tag = r.text()
		case "file":
			v.File = r.text()
		case "target":
			v.Target = r.text()
		case "read_only":
			v.ReadOnly = r.bool()
		default:
			r.fail()
		}
	})
	return v
}

func (r *reader) network() *vm.Network {
	if r.word("null") {
		return nil
	}
	n := new(vm.Network)
	r.object(func(name string) {
		switch name {
		case "mac":
			n.MAC = r.bytes()
		case "mtu":
			n.MTU = int(r.int())
		case "address":
			r.array(func() { n.Address = append(n.Address, r.address()) })
		case "gateways":
			r.array(func() { n.Gateways = append(n.Gateways, r.bytes()) })
		default:
			r.fail()
		}
	})
	return n
}

func (r *reader) address() (a vm.Address) {
	r.object(func(name string) {
		switch name {
		case "ip":
			a.IP = r.bytes()
		case "bits":
			a.Bits = int(r.int())
		default:
			r.fail()
		}
	})
	return a
}
