package machine

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/strata-project/strata/internal/fault"
)

// FirmwareFolders are where packages and administrators describe firmware; a file of
// a later folder replaces one of the same name. Source: QEMU, docs/interop/firmware.json.
func FirmwareFolders() []string {
	return []string{"/usr/share/qemu/firmware", "/usr/local/share/qemu/firmware", "/etc/qemu/firmware"}
}

// Found is a UEFI firmware of this host.
type Found struct {
	Description string
	Code        string // file that the machine executes, for reading only
	CodeFormat  string // raw or qcow2
	Vars        string // file that a machine's variables begin as a copy of
	VarsFormat  string
}

// NewVars makes a machine's own variables at path, which must not be there, as they
// are in a new one.
func (f Found) NewVars(path string) error {
	from, err := os.Open(f.Vars)
	if err != nil {
		return fault.Unablef("read the firmware's variables: %w", err).At("firmware").Help("apt install --reinstall ovmf")
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.Internalf("make the machine's variables: %w", err)
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Sync(), to.Close()); err != nil {
		os.Remove(path)
		return fault.Internalf("write the machine's variables: %w", err)
	}
	return nil
}

// descriptor is a file of FirmwareFolders. Source: QEMU, docs/interop/firmware.json.
type descriptor struct {
	Description string   `json:"description"`
	Interfaces  []string `json:"interface-types"`
	Mapping     struct {
		Device   string `json:"device"`
		Mode     string `json:"mode"`
		Code     file   `json:"executable"`
		Template file   `json:"nvram-template"`
	} `json:"mapping"`
	Targets []struct {
		Architecture string   `json:"architecture"`
		Machines     []string `json:"machines"`
	} `json:"targets"`
	Features []string `json:"features"`
}

type file struct {
	Name   string `json:"filename"`
	Format string `json:"format"`
}

// maxDescriptor bounds a descriptor. Unit: bytes.
const maxDescriptor = 64 << 10

// FindFirmware returns the host's OVMF for machines with firmware want, which is UEFI
// or UEFISecure, by the descriptors in folders. Kinds: Unable where there is none.
func FindFirmware(want Firmware, folders []string) (Found, error) {
	named := map[string]string{}
	for _, dir := range folders {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Found{}, fault.Unablef("read QEMU's firmware descriptors: %w", err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".json") {
				named[e.Name()] = filepath.Join(dir, e.Name())
			}
		}
	}
	var names, broken []string
	for name := range named {
		names = append(names, name)
	}
	slices.Sort(names) // their numbers are their ranks
	for _, name := range names {
		d, err := readDescriptor(named[name])
		if err != nil {
			broken = append(broken, err.Error())
			continue
		}
		if d.does(want) {
			return Found{d.Description, d.Mapping.Code.Name, d.Mapping.Code.Format, d.Mapping.Template.Name, d.Mapping.Template.Format}, nil
		}
	}
	kind := "UEFI firmware"
	if want == UEFISecure {
		kind = "UEFI firmware with Secure Boot and Microsoft's keys"
	}
	if len(broken) > 0 {
		return Found{}, fault.Unablef("this host has no %s for QEMU that can be used: %s", kind, strings.Join(broken, "; ")).At("firmware").Help("apt install --reinstall ovmf")
	}
	return Found{}, fault.Unablef("this host has no %s for QEMU", kind).At("firmware").Help("apt install ovmf (Fedora: edk2-ovmf), or use firmware bios")
}

func readDescriptor(name string) (d descriptor, err error) {
	f, err := os.Open(name)
	if err != nil {
		return d, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDescriptor))
	if err != nil || len(text) == 0 { // an empty one only hides that of another folder
		return d, err
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fault.Unablef("%s is no firmware descriptor: %w", name, err)
	}
	return d, nil
}

// does tells whether it is what is wanted, and there.
func (d descriptor) does(want Firmware) bool {
	m := d.Mapping
	has := func(feature string) bool { return slices.Contains(d.Features, feature) }
	if !slices.Contains(d.Interfaces, "uefi") || m.Device != "flash" || m.Mode != "" && m.Mode != "split" || !d.targets("x86_64", "pc-q35-7.2") {
		return false
	}
	if want == UEFISecure && !(has("secure-boot") && has("enrolled-keys") && has("requires-smm")) {
		return false // without keys it starts anything
	}
	if want == UEFI && (has("enrolled-keys") || has("requires-smm")) {
		return false
	}
	for _, f := range []file{m.Code, m.Template} {
		if _, err := os.Stat(f.Name); err != nil || f.Format != "raw" && f.Format != "qcow2" {
			return false
		}
	}
	return true
}

func (d descriptor) targets(architecture, machine string) bool {
	for _, t := range d.Targets {
		for _, pattern := range t.Machines {
			if ok, _ := path.Match(pattern, machine); ok && t.Architecture == architecture {
				return true
			}
		}
	}
	return false
}
