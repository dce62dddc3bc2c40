package seccomp

import (
	"cmp"
	"slices"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

// target is what a profile is compiled for.
type target struct {
	arch         string // GOARCH
	capabilities []string
	kernel       Version
}

type call struct {
	name   string
	number uint32
}

// table is one architecture's numbers.
type table struct {
	audit uint32 // AUDIT_ARCH of seccomp_data. Source: linux/audit.h
	calls []call
	bits  int // width of an argument
}

// auditARM is AUDIT_ARCH_ARM: EM_ARM (40) with the little-endian flag.
// Source: linux/audit.h; x/sys has it for its own architecture only.
const auditARM = 0x40000028

// The tables of the profile's names of architectures. x32 shares x86_64's audit
// word; bit 30 of the number tells them apart, and libseccomp compares its
// arguments as 32 bits.
var tables = map[specs.Arch]table{
	specs.ArchX86_64:  {unix.AUDIT_ARCH_X86_64, tableAMD64[:], 64},
	specs.ArchX86:     {unix.AUDIT_ARCH_I386, table386[:], 32},
	specs.ArchX32:     {unix.AUDIT_ARCH_X86_64, tableX32[:], 32},
	specs.ArchAARCH64: {unix.AUDIT_ARCH_AARCH64, tableARM64[:], 64},
	specs.ArchARM:     {auditARM, tableARM[:], 32},
}

// narrow lists the arguments that the kernel takes as 32 bits whatever the
// register holds. Source: SYSCALL_DEFINE of net/socket.c (int family) and
// kernel/exec_domain.c (unsigned int personality).
var narrow = map[string]uint{"socket": 0, "personality": 0}

// native names this architecture as the profile's conditions and archMap do.
var native = map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}

// check is one comparison of an argument.
type check struct {
	specs.LinuxSeccompArg
	bits int
}

// rule answers a call whose arguments pass every check.
type rule struct {
	checks  []check
	verdict uint32
}

// chain answers one system call: the first rule that matches, else the default.
type chain []rule

// arches returns the native architecture and those it can run besides.
func arches(p *moby.Seccomp, goarch string) ([]specs.Arch, error) {
	own, ok := native[goarch]
	if !ok {
		return nil, fault.Unablef("there is no seccomp profile for %s", goarch).Help("strata filters system calls on amd64 and arm64")
	}
	for _, a := range p.ArchMap {
		if a.Arch == own {
			return append([]specs.Arch{own}, a.SubArches...), nil
		}
	}
	return []specs.Arch{own}, nil
}

// applies tells whether a rule of the profile counts for t: no exclusion
// holds and every inclusion does. Within an exclusion's list one match is enough;
// of an inclusion's capabilities all must be there.
func applies(s *moby.Syscall, t target) bool {
	if x := s.Excludes; x != nil {
		if slices.Contains(x.Arches, t.arch) || x.MinKernel != nil && !t.kernel.Before(x.MinKernel.Kernel, x.MinKernel.Major) {
			return false
		}
		for _, c := range x.Caps {
			if slices.Contains(t.capabilities, c) {
				return false
			}
		}
	}
	if i := s.Includes; i != nil {
		if len(i.Arches) > 0 && !slices.Contains(i.Arches, t.arch) || i.MinKernel != nil && t.kernel.Before(i.MinKernel.Kernel, i.MinKernel.Major) {
			return false
		}
		for _, c := range i.Caps {
			if !slices.Contains(t.capabilities, c) {
				return false
			}
		}
	}
	return true
}

// chains collects the rules of every call in tb. Names the table lacks are
// passed over, as libseccomp does. An unconditional rule makes the call's
// conditional ones void, wherever it stands.
func chains(p *moby.Seccomp, t target, tb table) (map[uint32]chain, error) {
	numbers := make(map[string]uint32, len(tb.calls))
	for _, c := range tb.calls {
		numbers[c.name] = c.number
	}
	found := map[uint32]chain{}
	for _, s := range p.Syscalls {
		if !applies(s, t) {
			continue
		}
		v, err := verdict(s.Action, s.ErrnoRet, p.DefaultErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, name := range s.Names {
			number, known := numbers[name]
			if !known {
				continue
			}
			had := found[number]
			switch {
			case len(had) > 0 && len(had[0].checks) == 0:
			case len(s.Args) == 0:
				found[number] = chain{{verdict: v}}
			default:
				found[number] = append(had, rule{checks(name, s.Args, tb.bits), v})
			}
		}
	}
	return found, nil
}

func checks(name string, args []specs.LinuxSeccompArg, bits int) []check {
	all := make([]check, 0, len(args))
	for _, a := range args {
		c := check{a, bits}
		if index, is := narrow[name]; is && index == a.Index {
			c.bits = 32
		}
		all = append(all, c)
	}
	return all
}

// actions are those a profile may hold, besides SCMP_ACT_ERRNO.
var actions = map[specs.LinuxSeccompAction]uint32{
	specs.ActAllow:       unix.SECCOMP_RET_ALLOW,
	specs.ActKill:        unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillThread:  unix.SECCOMP_RET_KILL_THREAD,
	specs.ActKillProcess: unix.SECCOMP_RET_KILL_PROCESS,
	specs.ActTrap:        unix.SECCOMP_RET_TRAP,
	specs.ActLog:         unix.SECCOMP_RET_LOG,
}

// verdict returns what the kernel is told. errno falls back to the profile's
// default and then to EPERM, as runc has it.
func verdict(action specs.LinuxSeccompAction, errno, otherwise *uint) (uint32, error) {
	if action == specs.ActErrno {
		n := cmp.Or(errno, otherwise)
		if n == nil {
			return unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), nil
		}
		return unix.SECCOMP_RET_ERRNO | uint32(*n)&unix.SECCOMP_RET_DATA, nil
	}
	v, ok := actions[action]
	if !ok {
		return 0, fault.Invalidf("the seccomp action %s is not supported", action)
	}
	return v, nil
}
