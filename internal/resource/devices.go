package resource

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/strata-project/strata/internal/fault"
)

// Any stands for every major or minor number.
const Any = -1

// Device lets the processes of a group use a device.
type Device struct {
	Type         rune   // 'c', 'b', or 'a' for both
	Major, Minor int64  // Any: all
	Access       string // of "rwm": read, write, make the node
}

// DefaultDevices is what an environment may use unless more is given to it: make
// any node (a node alone opens nothing), and the devices of every OCI container.
// Source: OCI runtime-spec, config-linux.md "Default Devices", and the numbers of
// Documentation/admin-guide/devices.txt.
func DefaultDevices() []Device {
	return []Device{
		{'c', Any, Any, "m"}, {'b', Any, Any, "m"},
		{'c', 1, 3, "rwm"},     // null
		{'c', 1, 5, "rwm"},     // zero
		{'c', 1, 7, "rwm"},     // full
		{'c', 1, 8, "rwm"},     // random
		{'c', 1, 9, "rwm"},     // urandom
		{'c', 5, 0, "rwm"},     // tty
		{'c', 5, 1, "rwm"},     // console
		{'c', 5, 2, "rwm"},     // ptmx
		{'c', 136, Any, "rwm"}, // pts
	}
}

// FUSE is the device of file systems in user space, which no environment has
// unless asked for.
var FUSE = Device{'c', 10, 229, "rwm"}

func (d Device) String() string {
	number := func(n int64) string {
		if n == Any {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%c %s:%s %s", d.Type, number(d.Major), number(d.Minor), d.Access)
}

func checkDevices(all []Device) error {
	var errs []error
	for i, d := range all {
		ok := strings.ContainsRune("abc", d.Type) && d.Major >= Any && d.Minor >= Any && d.Major < 1<<31 && d.Minor < 1<<31 &&
			d.Access != "" && strings.Trim(d.Access, "rwm") == ""
		if !ok {
			errs = append(errs, fault.Invalidf("%s is no rule for a device", d).At(fmt.Sprintf("devices[%d]", i)).Help("such as c 10:229 rwm"))
		}
	}
	return fault.Join(errs...)
}

// allow closes every device but the given ones.
func (g *Group) allow(devices []Device) error {
	if p := g.root.programs; p != nil {
		return fault.Wrap(p.attach(g.unified(), devices), "restrict devices")
	}
	dir := g.dir("devices")
	if dir == "" {
		return fault.Unablef("this host can neither load device programs nor has it the devices controller")
	}
	if err := put(dir, "devices.deny", "a"); err != nil {
		return explain(err, "restrict devices")
	}
	for _, d := range devices {
		for _, one := range d.split() {
			if err := put(dir, "devices.allow", one.String()); err != nil {
				return explain(err, "allow device %s", one)
			}
		}
	}
	return nil
}

// split writes 'a' as the two it means: v1 takes "a" for everything whatever
// the numbers say.
func (d Device) split() []Device {
	if d.Type != 'a' {
		return []Device{d}
	}
	c, b := d, d
	c.Type, b.Type = 'c', 'b'
	return []Device{c, b}
}

// deviceGate closes the devices of a group in the unified hierarchy.
type deviceGate interface {
	attach(dir string, devices []Device) error
	close()
}

// devicePrograms keeps the loaded BPF programs, one for each list of devices, so
// that a group costs one attachment.
type devicePrograms struct {
	mu     sync.Mutex
	loaded map[string]*ebpf.Program
}

// maxPrograms bounds the programs that are kept; nearly all environments share one.
const maxPrograms = 64

// loadDevicePrograms loads the default list, which shows whether the kernel can.
func loadDevicePrograms() (deviceGate, error) {
	p := &devicePrograms{loaded: map[string]*ebpf.Program{}}
	if _, err := p.load(DefaultDevices()); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *devicePrograms) load(devices []Device) (*ebpf.Program, error) {
	key := fmt.Sprint(devices)
	if prog := p.loaded[key]; prog != nil {
		return prog, nil
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "strata_devices", Type: ebpf.CGroupDevice, AttachType: ebpf.AttachCGroupDevice,
		Instructions: deviceProgram(devices), License: "Apache-2.0"})
	if err != nil {
		return nil, fault.Unablef("load device program: %w", err).Help("the kernel needs CONFIG_CGROUP_BPF, and strata CAP_BPF or CAP_SYS_ADMIN")
	}
	if len(p.loaded) >= maxPrograms {
		p.drop()
	}
	p.loaded[key] = prog
	return prog, nil
}

// attach puts the program on a group, for as long as the group lives. An
// environment may add programs of its own below, which can only narrow it.
func (p *devicePrograms) attach(dir string, devices []Device) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	prog, err := p.load(devices)
	if err != nil {
		return err
	}
	target, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer target.Close()
	err = link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(target.Fd()), Program: prog, Attach: ebpf.AttachCGroupDevice, Flags: allowMulti})
	if err != nil {
		return fault.Unablef("attach device program to %s: %w", dir, err)
	}
	return nil
}

// allowMulti lets groups below attach programs too; all must agree.
// Source: linux/bpf.h, BPF_F_ALLOW_MULTI.
const allowMulti = 1 << 1

func (p *devicePrograms) drop() {
	for key, prog := range p.loaded {
		prog.Close()
		delete(p.loaded, key)
	}
}

func (p *devicePrograms) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}

// Source of the numbers: linux/bpf.h, struct bpf_cgroup_dev_ctx and BPF_DEVCG_*.
const (
	ctxAccess, ctxMajor, ctxMinor = 0, 4, 8
	devBlock, devChar             = 1, 2
	accMknod, accRead, accWrite   = 1, 2, 4
)

// deviceProgram answers 1 where one rule covers the device and all of the
// access asked for, as v1 does, and 0 otherwise.
func deviceProgram(devices []Device) asm.Instructions {
	// R2 type, R3 access, R4 major, R5 minor.
	out := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, ctxAccess, asm.Word),
		asm.Mov.Reg32(asm.R3, asm.R2),
		asm.And.Imm32(asm.R2, 0xffff),
		asm.RSh.Imm32(asm.R3, 16),
		asm.LoadMem(asm.R4, asm.R1, ctxMajor, asm.Word),
		asm.LoadMem(asm.R5, asm.R1, ctxMinor, asm.Word),
	}
	var rules []asm.Instructions
	for _, d := range devices {
		for _, one := range d.split() {
			rules = append(rules, one.instructions())
		}
	}
	for i, rule := range rules {
		next := "refuse"
		if i+1 < len(rules) {
			next = fmt.Sprintf("rule%d", i+1)
		}
		for j := range rule {
			if rule[j].Reference() != "" {
				rule[j] = rule[j].WithReference(next)
			}
		}
		rule[0] = rule[0].WithSymbol(fmt.Sprintf("rule%d", i))
		out = append(out, rule...)
	}
	return append(out, asm.Mov.Imm(asm.R0, 0).WithSymbol("refuse"), asm.Return())
}

// instructions returns 1 where the rule covers what is asked, and jumps to the
// rule behind it otherwise.
func (d Device) instructions() asm.Instructions {
	access := int32(0)
	for _, c := range d.Access {
		access |= map[rune]int32{'r': accRead, 'w': accWrite, 'm': accMknod}[c]
	}
	kind := int32(devChar)
	if d.Type == 'b' {
		kind = devBlock
	}
	out := asm.Instructions{
		asm.JNE.Imm(asm.R2, kind, "next"),
		asm.Mov.Reg32(asm.R1, asm.R3),
		asm.And.Imm32(asm.R1, ^access),
		asm.JNE.Imm(asm.R1, 0, "next"),
	}
	if d.Major != Any {
		out = append(out, asm.JNE.Imm(asm.R4, int32(d.Major), "next"))
	}
	if d.Minor != Any {
		out = append(out, asm.JNE.Imm(asm.R5, int32(d.Minor), "next"))
	}
	return append(out, asm.Mov.Imm(asm.R0, 1), asm.Return())
}
