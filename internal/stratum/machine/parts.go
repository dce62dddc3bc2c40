package machine

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/disk/image"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper"
	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/confine"
	"github.com/strata-project/strata/internal/qemu/machine"
	"github.com/strata-project/strata/internal/stratum/virtual"
	"github.com/strata-project/strata/internal/unit"
)

// choose puts what was asked for by name instead of what is usual.
func choose(s *machine.Spec, p api.Hardware) error {
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
		return fault.Unablef("Hyper-V's interfaces are there by KVM only, and this machine runs by %s", s.Accel).At("foreign.hyperv").Help("leave it out")
	}
	s.CPU.HyperV = s.CPU.HyperV || p.HyperV
	s.TPM = p.TPM
	if p.Floppy != "" {
		s.Drives = append(s.Drives, machine.Drive{ID: floppy, Medium: machine.Floppy, ReadOnly: true})
	}
	return nil
}

// mostFloppy is what a floppy disk holds at most. Source: QEMU, hw/block/fdc.c, fd_formats.
const mostFloppy = 2880 * unit.KiB

// openFloppy opens the image of a floppy disk, which is only read.
func openFloppy(path, state string) (*image.Chain, error) {
	if within(state, path) {
		return nil, fault.Invalidf("%s is strata's own", path).At("foreign.floppy").Help("use a file elsewhere")
	}
	c, err := image.Open(path, image.Rules{Format: image.Raw})
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

// Beside implements virtual.Accompanied: the TPM is a program of its own, which is
// confined as QEMU is, and ends with it.
func (l *foreign) Beside(h *virtual.Handed) ([]keeper.Beside, error) {
	if !l.spec.TPM {
		return nil, nil
	}
	dir, user := filepath.Join(filepath.Dir(l.plan.Disk), tpmDir), l.plan.IDBase
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fault.Internalf("make the folder of the TPM: %w", err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil, fault.Internalf("open the folder of the TPM: %w", err)
	}
	h.Keep(folder)
	if err := own(dir, int(user)); err != nil {
		return nil, err
	}
	control, err := h.Connected(&l.control)
	if err != nil {
		return nil, err
	}
	const first = 3
	return []keeper.Beside{{
		Path: l.agent, CloneFlags: confine.Namespaces, Files: []*os.File{control, folder},
		Args: confine.Spec{
			Program: l.tpm.Path, Args: l.tpm.Args(first, confine.FilesPlace+"/4"), User: user, First: first, Last: first + 1, Files: true,
		}.Encode(),
	}}, nil
}

// own gives a folder and the files in it to a user: a record's range of ids can change.
func own(dir string, user int) error {
	found, err := os.ReadDir(dir)
	if err == nil {
		err = os.Lchown(dir, user, user)
	}
	for _, f := range found {
		err = errors.Join(err, os.Lchown(filepath.Join(dir, f.Name()), user, user))
	}
	if err != nil {
		return fault.Internalf("give the TPM its folder: %w", err)
	}
	return nil
}

var _ virtual.Accompanied = (*foreign)(nil)
