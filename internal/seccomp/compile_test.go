package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// data is struct seccomp_data.
type data struct {
	number uint32
	arch   uint32
	args   [6]uint64
}

func (d data) words() []byte {
	out := binary.LittleEndian.AppendUint32(nil, d.number)
	out = binary.LittleEndian.AppendUint32(out, d.arch)
	out = binary.LittleEndian.AppendUint64(out, 0)
	for _, a := range d.args {
		out = binary.LittleEndian.AppendUint64(out, a)
	}
	return out
}

// run interprets a program as the kernel does and counts its instructions.
func run(f Filter, d data) (verdict uint32, steps int, err error) {
	mem := d.words()
	var a uint32
	for pc := 0; pc < len(f); pc++ {
		steps++
		i := f[pc]
		yes := false
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			if i.K%4 != 0 || int(i.K)+4 > len(mem) {
				return 0, steps, fmt.Errorf("load from %d", i.K)
			}
			a = binary.LittleEndian.Uint32(mem[i.K:])
			continue
		case unix.BPF_RET | unix.BPF_K:
			return i.K, steps, nil
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			a &= i.K
			continue
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			yes = a == i.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			yes = a > i.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			yes = a >= i.K
		default:
			return 0, steps, fmt.Errorf("instruction %#x", i.Code)
		}
		if yes {
			pc += int(i.Jt)
		} else {
			pc += int(i.Jf)
		}
	}
	return 0, steps, fmt.Errorf("fell off the end")
}

// judge answers a call straight from the profile, rule by rule.
func judge(p *moby.Seccomp, t target, arch specs.Arch, name string, args [6]uint64) uint32 {
	out := unix.SECCOMP_RET_ERRNO | uint32(*p.DefaultErrnoRet)
	conditional := false
	for _, s := range p.Syscalls {
		if !applies(s, t) || !slices.Contains(s.Names, name) {
			continue
		}
		v := uint32(unix.SECCOMP_RET_ALLOW)
		if s.Action == specs.ActErrno {
			v = unix.SECCOMP_RET_ERRNO | uint32(*s.ErrnoRet)
		}
		if len(s.Args) == 0 {
			return v
		}
		all := true
		for _, a := range s.Args {
			all = all && holds(a, args[a.Index], arch, name)
		}
		if all && !conditional {
			out, conditional = v, true
		}
	}
	return out
}

func holds(a specs.LinuxSeccompArg, got uint64, arch specs.Arch, name string) bool {
	if arch == specs.ArchX86 || arch == specs.ArchX32 || arch == specs.ArchARM || name == "socket" || name == "personality" {
		got = got & 0xffffffff
	}
	switch a.Op {
	case specs.OpEqualTo:
		return got == a.Value
	case specs.OpNotEqual:
		return got != a.Value
	case specs.OpLessThan:
		return got < a.Value
	case specs.OpLessEqual:
		return got <= a.Value
	case specs.OpGreaterThan:
		return got > a.Value
	case specs.OpGreaterEqual:
		return got >= a.Value
	case specs.OpMaskedEqual:
		return got&a.Value == a.ValueTwo
	}
	return false
}

// values are the arguments at which some rule of the profile turns.
func values() []uint64 {
	var out []uint64
	for _, v := range []uint64{0, 1, 8, 0x20000, 0x20008, 0xffffffff, unix.AF_ALG, unix.AF_ALG + 1, unix.AF_VSOCK, uint64(unix.SIGCHLD),
		unix.CLONE_NEWNS, unix.CLONE_NEWUTS, unix.CLONE_NEWIPC, unix.CLONE_NEWUSER, unix.CLONE_NEWPID, unix.CLONE_NEWNET, unix.CLONE_NEWCGROUP, 0x7e020000, 0x3d0f00} {
		out = append(out, v-1, v, v+1, v|1<<32, v|0xffffffff<<32, v<<32)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

var app = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

var system = append(slices.Clone(app), "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_SYS_BOOT", "CAP_SYS_RESOURCE",
	"CAP_SYS_TTY_CONFIG", "CAP_SYSLOG", "CAP_DAC_READ_SEARCH", "CAP_IPC_LOCK", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_NET_BROADCAST", "CAP_AUDIT_CONTROL")

// TestProgramAnswersAsTheProfileSays walks every number of every architecture,
// each with every argument value at which a rule turns.
func TestProgramAnswersAsTheProfileSays(t *testing.T) {
	sets := map[string][]string{"no capability": nil, "an app's": app, "a system's": system,
		"one at a time": {"CAP_SYSLOG"}, "bpf and perf": {"CAP_BPF", "CAP_PERFMON", "CAP_SYS_TIME", "CAP_SYS_MODULE", "CAP_SYS_PACCT", "CAP_SYS_RAWIO"}}
	for _, goarch := range []string{"amd64", "arm64"} {
		for name, caps := range sets {
			for _, kernel := range []Version{{4, 4}, {6, 1}} {
				t.Run(fmt.Sprintf("%s with %s capabilities on %d.%d", goarch, name, kernel.Major, kernel.Minor), func(t *testing.T) {
					compareAll(t, target{goarch, caps, kernel})
				})
			}
		}
	}
}

func compareAll(t *testing.T, to target) {
	p := moby.DefaultProfile()
	f, err := compile(p, to)
	if err != nil {
		t.Fatal(err)
	}
	list, err := arches(p, to.arch)
	if err != nil {
		t.Fatal(err)
	}
	deepest := 0
	for _, arch := range list {
		tb := tables[arch]
		names := map[uint32][]string{}
		for _, c := range tb.calls {
			names[c.number] = append(names[c.number], c.name)
		}
		for _, number := range numbers(arch) {
			for _, v := range values() {
				d := data{number: number, arch: tb.audit, args: [6]uint64{v, v, v, v, v, v}}
				got, steps, err := run(f, d)
				if err != nil {
					t.Fatal(err)
				}
				deepest = max(deepest, steps)
				want := unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
				for _, name := range names[number] {
					// A number with two names is open if either is.
					if j := judge(p, to, arch, name, d.args); j != want {
						want = j
					}
				}
				if got != want {
					t.Fatalf("%s %v (%#x) with %#x: got %#x, want %#x", arch, names[number], number, v, got, want)
				}
			}
		}
	}
	if got, _, _ := run(f, data{arch: 0xdead}); got != unix.SECCOMP_RET_KILL_PROCESS {
		t.Errorf("an unknown architecture gets %#x, want kill", got)
	}
	if len(f) > maxInstructions/2 || deepest > 40 {
		t.Errorf("%d instructions, at most %d a call: too many", len(f), deepest)
	}
	t.Logf("%d instructions, at most %d a call", len(f), deepest)
}

func numbers(arch specs.Arch) []uint32 {
	var out []uint32
	for n := range uint32(700) {
		if arch == specs.ArchX32 {
			n |= x32Bit
		}
		out = append(out, n)
	}
	switch arch {
	case specs.ArchARM:
		for n := range uint32(16) {
			out = append(out, 0x0f0000+n)
		}
	case specs.ArchX86_64:
		out = append(out, 0x3fffffff)
	default:
		out = append(out, 0x7fffffff, 0xffffffff)
	}
	return out
}

func TestEveryOperatorComparesAsWritten(t *testing.T) {
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual}
	pool := values()
	r := rand.New(rand.NewPCG(1, 2))
	pick := func() uint64 {
		if r.IntN(4) == 0 {
			return r.Uint64()
		}
		return pool[r.IntN(len(pool))]
	}
	for range 4000 {
		var args []specs.LinuxSeccompArg
		for range 1 + r.IntN(3) {
			a := specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Value: pick(), Op: ops[r.IntN(len(ops))]}
			if a.Op == specs.OpMaskedEqual {
				a.ValueTwo = pick() & a.Value
			}
			args = append(args, a)
		}
		f := chain{{checks("read", args, 64), 1}}.code(2)
		for range 40 {
			var d data
			for i := range d.args {
				d.args[i] = pick()
			}
			for _, a := range args {
				if r.IntN(2) == 0 {
					d.args[a.Index] = a.Value
				}
			}
			want := uint32(1)
			for _, a := range args {
				if !holds(a, d.args[a.Index], specs.ArchX86_64, "read") {
					want = 2
				}
			}
			if got, _, err := run(f, d); err != nil || got != want {
				t.Fatalf("%+v with %#x: got %d, %v, want %d", args, d.args, got, err, want)
			}
		}
	}
}

func TestFarBranchesReachOverLongCode(t *testing.T) {
	long := make(Filter, 0, 400)
	for range 300 {
		long = append(long, load(offNumber))
	}
	long = append(long, ret(7))
	f := append(Filter{load(offArch)}, branch(unix.BPF_JEQ, 5, long)...)
	f = append(f, ret(9))
	for arch, want := range map[uint32]uint32{5: 7, 6: 9} {
		if got, _, err := run(f, data{arch: arch}); err != nil || got != want {
			t.Errorf("architecture %d: got %d, %v, want %d", arch, got, err, want)
		}
	}
}

func TestDefaultIsCompiledOnceForASet(t *testing.T) {
	a, err := Default([]string{"CAP_CHOWN", "CAP_KILL"}, Version{6, 1})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Default([]string{"cap_kill", "CAP_CHOWN", "CAP_KILL"}, Version{6, 1})
	if &a[0] != &b[0] {
		t.Error("the same set in another order was compiled again")
	}
	if _, err := Default([]string{"NET_ADMIN"}, Version{6, 1}); err == nil {
		t.Error("NET_ADMIN was taken for a capability")
	}
}

func TestBytesParseIdentically(t *testing.T) {
	f, err := Default(app, Version{6, 1})
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(f.Bytes())
	if err != nil || !slices.Equal(f, again) {
		t.Errorf("parsed otherwise: %v", err)
	}
	for _, bad := range [][]byte{make([]byte, 7), make([]byte, (maxInstructions+1)*instructionSize)} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%d bytes were taken", len(bad))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, in []byte) {
		if p, err := Parse(in); err == nil && string(p.Bytes()) != string(in) {
			t.Errorf("%x was reprinted as %x", in, p.Bytes())
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := compile(moby.DefaultProfile(), target{"amd64", app, Version{6, 1}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDefaultKept(b *testing.B) {
	for b.Loop() {
		if _, err := Default(app, Version{6, 1}); err != nil {
			b.Fatal(err)
		}
	}
}
