package vmagent

import (
	"testing"

	"github.com/strata-project/strata/internal/mount"
)

func TestADiskHasTheFoldersThatZonesUse(t *testing.T) {
	if upperFolder != mount.Upper || workFolder != mount.Work {
		t.Errorf("%s, %s here; %s, %s in zones", upperFolder, workFolder, mount.Upper, mount.Work)
	}
}

func TestModulesAreCalledAsTheKernelCallsThem(t *testing.T) {
	for path, want := range map[string]string{"/modules/003-virtio-rng.ko": "virtio_rng", "/modules/erofs.ko": "erofs", "/modules/9p.ko": "9p"} {
		if got := moduleName(path); got != want {
			t.Errorf("%s is called %q, want %q", path, got, want)
		}
	}
}
