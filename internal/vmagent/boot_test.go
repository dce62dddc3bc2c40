package vmagent_test

import (
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
	if info.State != control.State_WAITING || info.Kernel == "" || info.BootId != "" || len(info.Faults) > 0 {
		t.Errorf("info: %v", info)
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
	if err != nil || info.State != control.State_RUNNING || info.BootId == "" {
		t.Errorf("info: %v, %v", info, err)
	}
	if list, err := c.Processes(t.Context()); err != nil || len(list) != 1 {
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
