package machine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk/image"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum"
	"github.com/strata-project/strata/internal/stratum/virtual"
	"github.com/strata-project/strata/internal/unit"
)

// choose puts what was asked for by name instead of what is usual; the board is chosen
// already. Fields of the request begin with field.
func choose(s *machine.Spec, p api.Hardware, field string) error {
	if p.DiskBus != "" {
		s.Bus = buses[p.DiskBus]
	}
	if p.Card != "" {
		s.Card = machine.CardModel(p.Card)
	}
	if p.CPUModel != "" {
		s.CPU.Model = p.CPUModel
	}
	s.CPU.Nested = p.Nested
	if p.HyperV && s.Accel != qemu.KVM {
		return fault.Unablef("Hyper-V's interfaces are there by KVM only, and this machine runs by %s", s.Accel).At(field + "hyperv").Help("leave it out")
	}
	s.CPU.HyperV = s.CPU.HyperV || p.HyperV
	s.TPM = p.TPM
	return nil
}

// options are the words of options for what package machine calls otherwise.
var options = strings.NewReplacer("virtio-blk", "virtio", "virtio-scsi", "scsi", "platform q35", "board q35")

// valid says all that is wrong with the machine, by the fields that users know, of which
// those of what was asked for by name begin with field.
func valid(s machine.Spec, field string) error {
	fields := map[string]string{"memory.size": "resources.memory", "memory.most": field + "memory_max", "processors.count": "resources.cpus", "boot": field + "boot", "once": field + "boot_once",
		"platform": field + "board", "bus": field + "disk_bus", "card": field + "card", "cards." + card + ".model": field + "card",
		"cpu.model": field + "cpu_model", "cpu.nested": field + "nested", "drives." + floppy + ".bus": field + "floppy"}
	for _, d := range s.Drives {
		if d.Medium == machine.Disk {
			fields["drives."+d.ID+".bus"] = field + "disk_bus"
		}
	}
	var all []error
	if err := s.Validate(); err != nil {
		seen := map[string]bool{} // of several disks the same is wrong
		for _, one := range fault.All(err) {
			e := *one
			if named := fields[e.Field]; named != "" {
				e.Field = named
			}
			e.Hint = options.Replace(e.Hint)
			if !seen[e.Error()+e.Field] {
				all = append(all, &e)
			}
			seen[e.Error()+e.Field] = true
		}
	}
	return fault.Join(all...)
}

// mostFloppy is what a floppy disk holds at most. Source: QEMU, hw/block/fdc.c, fd_formats.
const mostFloppy = 2880 * unit.KiB

// openFloppy opens the image of a floppy disk, which is only read.
func openFloppy(path, state string) (*image.Chain, error) {
	c, err := image.Open(path, image.Rules{Format: image.Raw, Without: state})
	if err != nil {
		return nil, named(err, "foreign.floppy")
	}
	if c.Size > mostFloppy {
		c.Close()
		return nil, fault.Invalidf("%s is no floppy disk: it has %s", path, c.Size).At("foreign.floppy").Help("at most %s; a larger one is a disk: --disk-image", unit.Size(mostFloppy))
	}
	return c, nil
}

// tpmDir keeps what an environment's TPM knows, beside its disk.
const tpmDir = "tpm"

// chip is a machine's TPM; its zero value is none.
type chip struct {
	tpm     machine.TPM
	agent   string // path of the program that confines it
	control int    // QEMU's end of its socket
}

// chip finds what s's TPM takes. Kinds: Unable.
func (d *Driver) chip(ctx context.Context, s machine.Spec) (chip, error) {
	if !s.TPM {
		return chip{}, nil
	}
	tpm, err := machine.FindTPM(ctx)
	return chip{tpm: tpm, agent: d.Agent}, err
}

// Beside implements virtual.Accompanied.
func (l *foreign) Beside(h *virtual.Handed) ([]keeper.Beside, error) { return l.chip.beside(h, l.plan) }

// Beside implements virtual.Accompanied.
func (l *launch) Beside(h *virtual.Handed) ([]keeper.Beside, error) { return l.chip.beside(h, l.plan) }

// beside makes the chip run: it is a program of its own, which is confined as QEMU is, and
// ends with it.
func (c *chip) beside(h *virtual.Handed, p stratum.Plan) ([]keeper.Beside, error) {
	if c.agent == "" {
		return nil, nil
	}
	dir, user := filepath.Join(filepath.Dir(p.Disk), tpmDir), p.IDBase
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.Internalf("make the folder of the TPM: %w", err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil, fault.Internalf("open the folder of the TPM: %w", err)
	}
	h.Keep(folder)
	if err := own(folder, int(user)); err != nil {
		return nil, err
	}
	control, err := h.Connected(&c.control)
	if err != nil {
		return nil, err
	}
	const first = 3
	return []keeper.Beside{{
		Name: "swtpm", Path: c.agent, CloneFlags: confine.Namespaces, Files: []*os.File{control, folder},
		Args: confine.Spec{
			Program: c.tpm.Path, Args: c.tpm.Args(first, confine.FilesPlace+"/4"), User: user, First: first, Last: first + 1, Files: true,
		}.Encode(),
	}}, nil
}

// maxTPMFiles bounds what is in a TPM's folder: swtpm has three files there, and may have
// been taken over.
const maxTPMFiles = 16

// own gives a folder and the few files in it to a user: a record's range of ids can change.
// Kinds: Unable where there are more of them.
func own(folder *os.File, user int) error {
	found, err := folder.Readdirnames(maxTPMFiles + 1)
	if err == io.EOF { // it is empty
		err = nil
	}
	if len(found) > maxTPMFiles {
		return fault.Unablef("its TPM has more files than any TPM keeps: what runs the machine may have been taken over").Help("look at %s before you start it again", folder.Name())
	}
	if err == nil {
		err = folder.Chown(user, user)
	}
	for _, name := range found {
		err = errors.Join(err, os.Lchown(filepath.Join(folder.Name(), name), user, user))
	}
	if err != nil {
		return fault.Internalf("give the TPM its folder: %w", err)
	}
	return nil
}

var (
	_ virtual.Accompanied = (*foreign)(nil)
	_ virtual.Accompanied = (*launch)(nil)
)
