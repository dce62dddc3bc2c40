package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/strata-project/strata/internal/fault"
)

// describe writes a descriptor as Debian's package ovmf has it.
func describe(t *testing.T, dir, name, code string, features string) {
	t.Helper()
	text := fmt.Sprintf(`{"description": %q, "interface-types": ["uefi"],
		"mapping": {"device": "flash", "executable": {"filename": %q, "format": "raw"}, "nvram-template": {"filename": %q, "format": "raw"}},
		"targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}], "features": [%s], "tags": []}`, name, code, code, features)
	write(t, filepath.Join(dir, name), text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFirmwareIsFoundByItsDescriptors(t *testing.T) {
	const secure, enrolled = `"acpi-s3", "requires-smm", "secure-boot"`, `"enrolled-keys", "requires-smm", "secure-boot"`
	files := t.TempDir()
	code := filepath.Join(files, "CODE.fd")
	write(t, code, "")
	for sentence, c := range map[string]struct {
		lay        func(usual, admin string)
		want       Firmware
		name, says string
	}{
		"what a package has": {func(usual, _ string) {
			describe(t, usual, "40-enrolled.json", code, enrolled)
			describe(t, usual, "50-secure.json", code, secure)
			describe(t, usual, "60-plain.json", code, "")
		}, UEFI, "60-plain.json", ""},
		"what a package has for Secure Boot": {func(usual, _ string) {
			describe(t, usual, "30-secure.json", code, secure)
			describe(t, usual, "40-enrolled.json", code, enrolled)
		}, UEFISecure, "40-enrolled.json", ""},
		"the first by rank": {func(usual, admin string) {
			describe(t, usual, "60-plain.json", code, "")
			describe(t, admin, "10-own.json", code, "")
		}, UEFI, "10-own.json", ""},
		"one that the administrator hides": {func(usual, admin string) {
			describe(t, usual, "60-plain.json", code, "")
			write(t, filepath.Join(admin, "60-plain.json"), "")
		}, UEFI, "", "this host has no UEFI firmware for QEMU"},
		"none":           {func(string, string) {}, UEFI, "", "this host has no UEFI firmware for QEMU"},
		"none with keys": {func(usual, _ string) { describe(t, usual, "50-secure.json", code, secure) }, UEFISecure, "", "Secure Boot and Microsoft's keys"},
		"one whose files are gone": {func(usual, _ string) {
			describe(t, usual, "60-plain.json", filepath.Join(files, "gone"), "")
		}, UEFI, "", "this host has no UEFI firmware"},
		"one that cannot be read": {func(usual, _ string) { write(t, filepath.Join(usual, "1.json"), "{") }, UEFI, "", "is no firmware descriptor"},
		"one that is too large": {func(usual, _ string) {
			write(t, filepath.Join(usual, "1.json"), strings.Repeat(" ", maxDescriptor)+"{}")
		}, UEFI, "", "is no firmware descriptor"},
		"one that is something else": {func(usual, _ string) {
			write(t, filepath.Join(usual, "1.json"), `{"interface-types": ["bios"], "mapping": {"device": "memory", "filename": "/x"}}`)
		}, UEFI, "", "this host has no UEFI firmware"},
	} {
		t.Run(sentence, func(t *testing.T) {
			usual, admin := t.TempDir(), t.TempDir()
			c.lay(usual, admin)
			f, err := FindFirmware(c.want, []string{filepath.Join(files, "nonesuch"), usual, admin})
			if c.name != "" {
				if err != nil || f.Description != c.name || f.Code != code || f.CodeFormat != "raw" || f.Vars != code {
					t.Errorf("got %+v, %v", f, err)
				}
				return
			}
			if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), c.says) || !strings.Contains(fault.All(err)[0].Hint, "ovmf") {
				t.Errorf("got %+v, %v", f, err)
			}
		})
	}
}

func TestEachMachineHasVariablesOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	f := Found{Vars: filepath.Join(dir, "VARS.fd")}
	own := filepath.Join(dir, "own")
	if err := f.NewVars(own); !fault.Is(err, fault.Unable) {
		t.Errorf("of nothing: %v", err)
	}
	write(t, f.Vars, "as new")
	if err := f.NewVars(own); err != nil {
		t.Fatal(err)
	}
	write(t, own, "changed")
	if err := f.NewVars(own); err == nil {
		t.Error("variables that are there are replaced")
	}
	text, _ := os.ReadFile(f.Vars)
	info, err := os.Stat(own)
	if string(text) != "as new" || err != nil || info.Mode() != 0o600 {
		t.Errorf("the firmware's own are %q; %v, %v", text, info, err)
	}
}
