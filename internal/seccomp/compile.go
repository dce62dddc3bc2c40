package seccomp

import (
	"maps"
	"reflect"
	"slices"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/strata-project/strata/internal/fault"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data. Source: linux/seccomp.h.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// x32Bit marks a number of the x32 interface. Source: asm/unistd.h.
const x32Bit = 0x40000000

// compile turns the rules that hold for t into a program.
func compile(p *moby.Seccomp, t target) (Filter, error) {
	list, err := arches(p, t.arch)
	if err != nil {
		return nil, err
	}
	otherwise, err := verdict(p.DefaultAction, p.DefaultErrnoRet, nil)
	if err != nil {
		return nil, err
	}
	byAudit := map[uint32]map[uint32]chain{}
	var order []uint32
	for _, name := range list {
		tb, ok := tables[name]
		if !ok {
			return nil, fault.Unablef("there is no table of system calls for %s", name)
		}
		found, err := chains(p, t, tb)
		if err != nil {
			return nil, err
		}
		if byAudit[tb.audit] == nil {
			byAudit[tb.audit] = map[uint32]chain{}
			order = append(order, tb.audit)
		}
		// x86_64 and x32 share one tree: their numbers do not meet.
		maps.Copy(byAudit[tb.audit], found)
	}
	program := Filter{load(offArch)}
	for _, audit := range order {
		body := append(Filter{load(offNumber)}, tree(ranges(byAudit[audit], otherwise))...)
		program = append(program, branch(unix.BPF_JEQ, audit, body)...)
	}
	program = append(program, ret(unix.SECCOMP_RET_KILL_PROCESS))
	if len(program) > maxInstructions {
		return nil, fault.Unablef("the seccomp profile takes %d instructions, the kernel %d", len(program), maxInstructions)
	}
	return program, nil
}

// span is a run of numbers from start on with the same answer.
type span struct {
	start uint32
	code  Filter
}

// ranges cuts the numbers from 0 to the largest into runs of the same answer.
// A number that no rule names gets the default.
func ranges(found map[uint32]chain, otherwise uint32) []span {
	all := []span{{0, Filter{ret(otherwise)}}}
	add := func(start uint32, code Filter) {
		last := &all[len(all)-1]
		switch {
		case last.start == start:
			last.code = code
			if n := len(all); n > 1 && reflect.DeepEqual(all[n-2].code, code) {
				all = all[:n-1]
			}
		case !reflect.DeepEqual(last.code, code):
			all = append(all, span{start, code})
		}
	}
	for _, number := range slices.Sorted(maps.Keys(found)) {
		add(number, found[number].code(otherwise))
		add(number+1, Filter{ret(otherwise)})
	}
	return all
}

// tree finds the span that the accumulator lies in, by halving.
func tree(spans []span) Filter {
	if len(spans) == 1 {
		return spans[0].code
	}
	mid := len(spans) / 2
	return append(branch(unix.BPF_JGE, spans[mid].start, tree(spans[mid:])), tree(spans[:mid])...)
}

// branch runs then where the comparison holds and goes on behind it otherwise.
// then must end in a verdict. A distance above a conditional jump's 255 is
// covered by an unconditional one.
func branch(op uint16, k uint32, then Filter) Filter {
	if len(then) <= 255 {
		return append(Filter{jump(op, k, 0, uint8(len(then)))}, then...)
	}
	far := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(then))}
	return append(Filter{jump(op, k, 1, 0), far}, then...)
}

// code answers one call.
func (c chain) code(otherwise uint32) Filter {
	var out Filter
	for _, r := range c {
		out = append(out, r.code()...)
		if len(r.checks) == 0 {
			return out
		}
	}
	return append(out, ret(otherwise))
}

// code returns the verdict where every check passes and goes on behind itself
// otherwise.
func (r rule) code() Filter {
	out := Filter{ret(r.verdict)}
	for i := len(r.checks) - 1; i >= 0; i-- {
		out = append(r.checks[i].code(uint8(len(out))), out...)
	}
	return out
}

// step is one instruction of a check; its jumps name where to go.
type step struct {
	op       uint16
	k        uint32
	yes, no  dest
	isBranch bool
}

type dest uint8

const (
	next dest = iota // the following instruction
	pass             // the end of the check
	fail             // behind the whole rule
)

// code falls through where the check passes, and skips the rest of the rule
// (rest instructions) where it fails.
func (c check) code(rest uint8) Filter {
	steps := c.steps()
	out := make(Filter, 0, len(steps))
	for i, s := range steps {
		if !s.isBranch {
			out = append(out, unix.SockFilter{Code: s.op, K: s.k})
			continue
		}
		to := func(d dest) uint8 {
			left := uint8(len(steps) - i - 1)
			switch d {
			case pass:
				return left
			case fail:
				return left + rest
			}
			return 0
		}
		out = append(out, jump(s.op, s.k, to(s.yes), to(s.no)))
	}
	return out
}

// steps compares the upper half first, and the lower one where that leaves it
// open. Both architectures are little endian: the lower half comes first.
func (c check) steps() []step {
	low := uint32(offArgs + 8*c.Index)
	high := low + 4
	at := func(off uint32) step { return step{op: load(off).Code, k: off} }
	when := func(op uint16, k uint32, yes, no dest) step { return step{op, k, yes, no, true} }
	lo, hi := uint32(c.Value), uint32(c.Value>>32)
	wide := c.bits == 64
	last := func(op uint16, yes, no dest) []step { return []step{at(low), when(op, lo, yes, no)} }
	with := func(upper []step, lower []step) []step {
		if wide {
			return append(upper, lower...)
		}
		return lower
	}
	// over: the upper half decides by itself, and equal leaves it open.
	over := func(above, below dest) []step {
		return []step{at(high), when(unix.BPF_JGT, hi, above, next), when(unix.BPF_JEQ, hi, next, below)}
	}
	switch c.Op {
	case specs.OpEqualTo:
		return with([]step{at(high), when(unix.BPF_JEQ, hi, next, fail)}, last(unix.BPF_JEQ, pass, fail))
	case specs.OpNotEqual:
		return with([]step{at(high), when(unix.BPF_JEQ, hi, next, pass)}, last(unix.BPF_JEQ, fail, pass))
	case specs.OpGreaterThan:
		return with(over(pass, fail), last(unix.BPF_JGT, pass, fail))
	case specs.OpGreaterEqual:
		return with(over(pass, fail), last(unix.BPF_JGE, pass, fail))
	case specs.OpLessThan:
		return with(over(fail, pass), last(unix.BPF_JGE, fail, pass))
	case specs.OpLessEqual:
		return with(over(fail, pass), last(unix.BPF_JGT, fail, pass))
	case specs.OpMaskedEqual:
		// Value is the mask, ValueTwo what must be left.
		and := func(k uint32) step { return step{op: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, k: k} }
		want, wantHigh := uint32(c.ValueTwo), uint32(c.ValueTwo>>32)
		return with([]step{at(high), and(hi), when(unix.BPF_JEQ, wantHigh, next, fail)},
			[]step{at(low), and(lo), when(unix.BPF_JEQ, want, pass, fail)})
	}
	// An operator nobody knows never matches.
	return []step{when(unix.BPF_JGE, 0, fail, fail)}
}

func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func ret(v uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v}
}

func jump(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
}
