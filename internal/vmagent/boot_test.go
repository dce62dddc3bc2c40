package vmagent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/vmagent/control"
)

func TestAGuestAnswersInfo(t *testing.T) {
	g := bootGuest(t, machine{})
	c := g.dial(t)
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("answer after %v: %v", time.Since(g.started), info)
	if info.State != control.State_WAITING || info.Kernel == "" || len(info.Faults) > 0 {
		t.Errorf("info: %v", info)
	}
	for range 3 { // a host may come and go
		c.Close()
		c = g.dial(t)
		if info, err := c.Info(t.Context()); err != nil || info.State != control.State_WAITING {
			t.Errorf("after another meeting: %v, %v", info, err)
		}
	}
	if _, err := c.Stats(t.Context()); err == nil {
		t.Error("stats of nothing")
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	g.wait(t)
}

func TestAnIdleGuestRuns(t *testing.T) {
	template, disk := files(t)
	g := bootGuest(t, machine{template: template, disk: disk})
	c := g.dial(t)
	r := basicRun()
	r.Idle = true
	begin := time.Now()
	if err := g.run(t, c, r); err != nil {
		t.Fatal(err)
	}
	t.Logf("run took %v", time.Since(begin))
	info, err := c.Info(t.Context())
	if err != nil || info.State != control.State_RUNNING {
		t.Errorf("info: %v, %v", info, err)
	}
	if list, _, err := c.Processes(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("processes: %v, %v", list, err)
	}
	if text, err := c.KernelLog(t.Context()); err != nil || len(text) < 1000 {
		t.Errorf("kernel log: %d bytes, %v", len(text), err)
	}
	if err := g.run(t, c, r); err == nil {
		t.Error("a second run is not refused")
	}
	if err := c.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	g.wait(t)
	command(t, "fsck.ext4", "-n", "-f", disk)
}

func TestAModuleThatCannotBeLoadedIsNamed(t *testing.T) {
	template, disk := files(t)
	g := bootGuest(t, machine{template: template, disk: disk, initramfs: initramfs(t, "erofs", "virtio_balloon")})
	c := g.dial(t)
	info, err := c.Info(t.Context())
	if err != nil || len(info.Faults) != 2 || info.Faults[0] != "erofs: exec format error" {
		t.Errorf("info: %v, %v", info, err)
	}
	r := basicRun()
	r.Idle = true
	if err := g.run(t, c, r); err == nil || !strings.Contains(err.Error(), "mount the template") || !strings.Contains(err.Error(), "erofs: exec format error") {
		t.Errorf("run: %v", err)
	}
}
