package host

import (
	"context"

	"github.com/strata-project/strata/internal/qemu/machine"
)

// firmware looks for a machine's firmware as its start does.
func firmware(want machine.Firmware) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		found, err := machine.FindFirmware(want, machine.FirmwareFolders())
		return found.Code, err
	}
}

// trusted looks for what makes TPMs.
func trusted(ctx context.Context) (string, error) {
	t, err := machine.FindTPM(ctx)
	return t.Path, err
}
