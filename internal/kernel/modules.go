package kernel

import (
	"cmp"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// Wanted names modules by what they are wanted for. A name of Card, Abreast or Required that
// a kernel neither has as a module nor built in is a fault; one of Early,
// Optional or Later is left out then. All are loaded in this order.
type Wanted struct {
	For    string // who wants them, for messages: guests
	Source string // where a kernel that has them comes from, as Add takes it

	Early    []string // where they are there, before everything else
	Card     []string // one of several network cards', which is to be found before the others
	Abreast  []string // while one looks for its devices, in no certain order, the next is loaded
	Required []string
	Optional []string
	Later    []string // what no program waits for: once the first one runs
}

// names are all that it wants, in the order of loading.
func (w Wanted) names() []string {
	return slices.Concat(w.Early, w.Card, w.Abreast, w.Required, w.Optional, w.Later)
}

// Guest is what a guest needs: virtio by memory-mapped registers, the file systems
// of templates and disks; and what it can do without: volumes, balloon, panics
// that are told at once, the power button.
var Guest = Wanted{
	For: "guests", Source: sourceDebian,
	// libcrc32c and jbd2 ask the crypto layer for it by an alias, which no
	// module depends on by name.
	Early: []string{"crc32c_generic"},
	Required: []string{
		"virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "overlay", "erofs", "ext4",
	},
	Later: []string{"pvpanic", "pvpanic_mmio", "virtio_rng", "virtio_balloon", "fuse", "virtiofs", "button", "evdev"},
}

// Machine is what a machine needs that boots a template on stock hardware: an AHCI
// controller and its disks, a network card, and the file systems as guests have them.
// Without virtio its agent is reached by serial ports, for which no kernel needs a module;
// without volumes, balloon, panics that are told at once, the power button and a keyboard it
// runs as well. Cloud kernels have none of the hardware. A controller asks each of its ports
// in its own time; disks are told from one another by what they say.
var Machine = Wanted{
	For: "machines", Source: sourceDebian + ":" + imagePrefix + runtime.GOARCH,
	Early:    []string{"crc32c_generic"},
	Abreast:  []string{"e1000e", "ahci", "sd_mod", "overlay", "erofs", "ext4"},
	Optional: []string{"virtio_pci", "virtio_console"},
	Later:    []string{"pvpanic", "pvpanic_mmio", "virtio_balloon", "fuse", "virtiofs", "button", "evdev", "i8042", "atkbd"},
}

// kept are further modules that are kept of a kernel where it has them, for what
// runs at a deeper stratum or inside: stock hardware, buses, file systems, KVM.
var kept = []string{
	"virtio_pci", "virtio_scsi", "virtio_input", "virtio_gpu", "vmw_vsock_virtio_transport",
	"ahci", "ata_piix", "ata_generic", "sd_mod", "sr_mod", "nvme", "isofs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "squashfs", "xfs", "btrfs", "loop", "dm_mod",
	"e1000", "e1000e", "8139cp", "ne2k_pci", "bochs", "cirrus", "simpledrm", "vga16fb", "psmouse", "atkbd", "i8042", "usbhid", "hid_generic", "xhci_pci", "ehci_pci", "uhci_hcd", "ohci_pci", "usb_storage",
	"pvpanic_pci", "qemu_fw_cfg", "irqbypass", "kvm", "kvm_amd", "kvm_intel", "tun", "veth", "bridge", "br_netfilter", "nf_tables", "nft_ct", "nft_chain_nat", "nft_masq", "nft_redir", "nft_nat", "nft_fib_inet", "nft_compat", "autofs4", "configfs", "dmi_sysfs",
}

// abreast has the kernel go on while a module's driver looks for its devices. Source: Linux,
// Documentation/admin-guide/kernel-parameters.txt, module.async_probe.
const abreast = "async_probe"

// parameters are those of modules that are not loaded as they are. QEMU's e1000e does not
// tell by interrupts of the newest kind (MSI-X) that the link is up, so the driver looks again after
// two seconds; those of the kind before (MSI) it tries for a tenth of a second, finds that none
// comes, and takes the oldest. One value is for one card.
// Source: drivers/net/ethernet/intel/e1000e/param.c, netdev.c, e1000_test_msi.
// A link of a disk is let settle for a fifth of a second before it is looked at, which QEMU's
// need not. Source: drivers/ata/libata-sata.c, sata_link_resume, and libata-core.c, force.
var parameters = map[string]string{"e1000e": "IntMode=0" + strings.Repeat(",0", 15), "libata": "force=nodbdelay"}

// Module is one module of a Set.
type Module struct {
	Name       string
	Path       string // of the uncompressed, unsigned file
	Size       int64
	Digest     string // "sha256:…"
	Parameters string // as the kernel takes them, "" for none
	Later      bool   // loaded once the first program runs
}

// Set is what a Wanted comes to with one kernel.
type Set struct {
	Modules []Module // in the order in which they are loaded
	BuiltIn []string // wanted, and needing no module
	Absent  []string // wanted where it is there, and not there
}

// Has tells whether the named module is loaded or built in.
func (s Set) Has(name string) bool {
	return slices.Contains(s.BuiltIn, name) || slices.ContainsFunc(s.Modules, func(m Module) bool { return m.Name == name })
}

// Set resolves w: dependencies come before what needs them. It reads no file.
// Kinds: Unable where a required module, or a dependency of one, is missing.
func (k Kernel) Set(w Wanted) (Set, error) {
	r := resolver{k: k, source: cmp.Or(w.Source, sourceDebian), state: map[string]state{}, needs: map[string][]string{}, broken: map[string]*failure{}, taken: map[string]bool{}}
	var errs []error
	var missing []string
	optional := func(names []string) {
		for _, name := range names {
			if err := r.add(name); err != nil {
				r.set.Absent = append(r.set.Absent, name)
			}
		}
	}
	optional(w.Early)
	required := func(names []string) {
		for _, name := range names {
			if !k.has(name) {
				if !slices.Contains(missing, name) {
					missing = append(missing, name)
				}
				continue
			}
			if err := r.add(name); err != nil {
				errs = append(errs, err)
			}
		}
	}
	required(w.Card)
	r.with = abreast
	required(w.Abreast)
	r.with = ""
	required(w.Required)
	optional(w.Optional)
	r.later = true
	optional(w.Later)
	if len(missing) > 0 {
		errs = append([]error{k.lacks(missing, r.source)}, errs...)
	}
	if len(errs) > 0 {
		return Set{}, fault.Join(errs...)
	}
	return r.set, nil
}

type state uint8

const (
	unseen state = iota
	underWay
	done
)

// resolver finds what modules need first and takes them then, so that a wish that comes to
// nothing leaves nothing, and what was found out on its way need not be found out again: a
// hostile kernel could have that take for ever.
type resolver struct {
	k      Kernel
	source string // where a kernel that lacks nothing comes from
	set    Set
	state  map[string]state
	needs  map[string][]string // of those that are done, what is loaded before them
	broken map[string]*failure
	taken  map[string]bool
	with   string // parameters of all that come now
	later  bool   // they are loaded once the first program runs
}

// failure says why a module cannot be loaded.
type failure struct {
	err    error
	circle string // a module under way that it leads back to; it may be loaded after that. "": never
}

// add adds a wanted module after what it depends on.
func (r *resolver) add(name string) error {
	if f := r.visit(name, ""); f != nil {
		return f.err
	}
	r.take(name)
	return nil
}

// visit finds what a module needs. by says what depends on it, "" where it is wanted itself.
func (r *resolver) visit(name, by string) *failure {
	m, ok := r.k.index[name]
	switch f := r.broken[name]; {
	case r.state[name] == done:
		return nil
	case r.state[name] == underWay:
		return &failure{fault.Unablef("modules %s and %s of kernel %s depend on one another", name, by, r.k.Name), name}
	case f != nil && (f.circle == "" || r.state[f.circle] == underWay):
		return f
	case !ok && r.k.built.has(name):
		if by == "" && !slices.Contains(r.set.BuiltIn, name) {
			r.set.BuiltIn = append(r.set.BuiltIn, name)
		}
		return nil
	case !ok && by == "":
		return &failure{err: r.k.lacks([]string{name}, r.source)}
	case !ok:
		return &failure{err: fault.Unablef("module %s of kernel %s needs %s, which is missing", by, r.k.Name, name).Help(elsewhere, r.source)}
	}
	r.state[name] = underWay
	var needs []string
	for _, other := range m.Depends {
		f := r.visit(other, name)
		if f == nil {
			needs = append(needs, other)
			continue
		}
		if f.circle == name { // it depends on itself
			f = &failure{err: f.err}
		}
		r.state[name], r.broken[name] = unseen, f
		return f
	}
	for _, other := range m.Before { // only wished for
		if real := r.k.named(other); real != "" && r.visit(real, name) == nil {
			needs = append(needs, real)
		}
	}
	r.state[name], r.needs[name] = done, needs
	return nil
}

// take adds a module that is done to the set, after what it needs.
func (r *resolver) take(name string) {
	m, ok := r.k.index[name]
	if !ok || r.taken[name] { // built in, or there
		return
	}
	r.taken[name] = true
	for _, other := range r.needs[name] {
		r.take(other)
	}
	r.set.Modules = append(r.set.Modules, Module{
		Name: name, Size: m.Size, Digest: m.Digest,
		Path:       filepath.Join(r.k.dir, modulesDir, name+moduleTail),
		Parameters: strings.TrimSpace(r.with + " " + parameters[name]),
		Later:      r.later,
	})
}

const elsewhere = "use a kernel that has it, as the distribution's have: strata kernel add %s"

// has tells whether k has something, as a module or built in.
func (k Kernel) has(name string) bool {
	_, ok := k.index[name]
	return ok || k.built.has(name)
}

// lacks says which modules are missing, and where a kernel that has them comes from.
func (k Kernel) lacks(names []string, source string) *fault.Error {
	e := fault.Unablef("kernel %s has no %s, neither as a module nor built in", k.Name, strings.Join(names, ", "))
	if len(k.index) == 0 {
		return e.Help("it came without modules: give them with it, as a folder (--modules) or a package, or use one of the distribution's: strata kernel add %s", source)
	}
	return e.Help(elsewhere, source)
}

// generic is what the plain implementation of an algorithm is called after, which
// works on every processor. Source: Linux, crypto/.
const generic = "_generic"

// named returns the module that a wish means: one of that name, or of an
// algorithm's implementations the plain one; "" where there is none. The others may
// refuse to load.
func (k Kernel) named(word string) string {
	if _, ok := k.index[word]; ok {
		return word
	}
	if m, ok := k.index[word+generic]; ok && slices.Contains(m.Aliases, word) {
		return m.Name
	}
	return ""
}
