package accel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/accel/loop"
	"github.com/strata-project/strata/internal/require"
)

// judge is one to which the device is open, whoever may open that of this host.
func judge(agent, file string) *Judge {
	j := New(agent, file)
	j.mode = func() uint32 { return 0o660 }
	return j
}

func TestADeviceOpensForItsGroupOrForAll(t *testing.T) {
	for mode, want := range map[uint32]bool{0o20600: false, 0o20640: false, 0o20660: true, 0o20606: true, 0o20666: true} {
		if opens(mode) != want {
			t.Errorf("mode %o: %v", mode, !want)
		}
	}
}

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == loop.Command {
		os.Exit(loop.Run())
	}
	os.Exit(m.Run())
}

// agent is a stand-in for strata-agent that says the given line.
func agent(t *testing.T, says string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	script := "#!/bin/sh\necho \"$0\" >>" + path + ".runs\n" + says + "\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// runs is how often it ran.
func runs(agent string) int {
	text, _ := os.ReadFile(agent + ".runs")
	return strings.Count(string(text), "\n")
}

func needsDevice(t *testing.T) {
	t.Helper()
	v, absent := absent()
	require.Host(t, "/dev/kvm", !absent, v.Reason)
}

var program = qemu.Program{Path: "/usr/bin/qemu", Version: "7.2.22"}

func TestTheVerdictIsWhatTheLoopSays(t *testing.T) {
	needsDevice(t)
	for sentence, c := range map[string]struct {
		says        string
		accelerator string
		reason      string
		sure        bool
	}{
		"a loop that runs is KVM":                  {"echo runs 2100000", qemu.KVM, "1000000 steps of a loop took 2.1ms", true},
		"a loop that is slow is TCG":               {"echo slow much too", qemu.TCG, "/dev/kvm opens but does not run a guest: much too", true},
		"a refusal may be otherwise later":         {"echo failed make a machine: busy", qemu.TCG, "/dev/kvm opens but does not run a guest: make a machine: busy", false},
		"a word that is not known is no answer":    {"echo hello", qemu.TCG, "its trial says nothing that is known", false},
		"a time that is none is no answer":         {"echo runs away", qemu.TCG, "its trial says nothing that is known", false},
		"a trial that crashes is no answer":        {"exit 3", qemu.TCG, "its trial says nothing that is known", false},
		"who says too much is not read to the end": {"yes runs 5", qemu.KVM, "steps of a loop took 0s", true},
	} {
		t.Run(sentence, func(t *testing.T) {
			v, sure := Try(t.Context(), agent(t, c.says))
			if v.Accelerator != c.accelerator || !strings.Contains(v.Reason, c.reason) || sure != c.sure {
				t.Errorf("got %v, %v", v, sure)
			}
		})
	}
}

func TestATrialThatHangsIsNotWaitedFor(t *testing.T) {
	needsDevice(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	v, sure := Try(ctx, agent(t, "exec sleep 1000"))
	if v.Accelerator != qemu.TCG || sure || !strings.Contains(v.Reason, "was not tried") {
		t.Errorf("got %v, %v", v, sure)
	}
}

func TestAVerdictIsKeptForThisHostAndQEMU(t *testing.T) {
	needsDevice(t)
	file := filepath.Join(t.TempDir(), "accelerator.json")
	a := agent(t, "echo slow much too")
	first := judge(a, file).Choose(t.Context(), program)
	j := judge(a, file)
	if v := j.Choose(t.Context(), program); v != first || runs(a) != 1 {
		t.Errorf("after a restart it is %v, was %v, by %d runs", v, first, runs(a))
	}
	other := program
	other.Version = "8.0.0"
	j.Choose(t.Context(), other)
	if j.Choose(t.Context(), other); runs(a) != 2 {
		t.Errorf("another QEMU was judged by %d runs", runs(a)-1)
	}
	for _, spoilt := range []string{"", "{", `{"key":"` + strings.Repeat("x", maxFile) + `"}`, `{"key":"` + keyOf(program) + `","verdict":{"accelerator":"magic"}}`} {
		if err := os.WriteFile(file, []byte(spoilt), 0o600); err != nil {
			t.Fatal(err)
		}
		before := runs(a)
		if v := judge(a, file).Choose(t.Context(), program); v != first || runs(a) != before+1 {
			t.Errorf("with a spoilt file it is %v", v)
		}
	}
}

func TestWhatMayChangeIsNotKept(t *testing.T) {
	needsDevice(t)
	a := agent(t, "echo failed make a machine: busy")
	j := judge(a, filepath.Join(t.TempDir(), "accelerator.json"))
	for range 2 {
		j.Choose(t.Context(), program)
	}
	if runs(a) != 2 {
		t.Errorf("tried %d times", runs(a))
	}
}

func TestTheFirstBootDecides(t *testing.T) {
	needsDevice(t)
	failed := errors.New("the agent does not answer")
	for sentence, c := range map[string]struct {
		boots       []error
		accelerator string
		booted      bool
	}{
		"one that goes well":               {[]error{nil}, qemu.KVM, true},
		"one that fails":                   {[]error{failed}, qemu.TCG, false},
		"a failure after one that did not": {[]error{nil, failed}, qemu.KVM, true},
		"a late success after a failure":   {[]error{failed, nil}, qemu.TCG, false},
	} {
		t.Run(sentence, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "accelerator.json")
			a := agent(t, "echo runs 5")
			j := judge(a, file)
			if v := j.Choose(t.Context(), program); v.Accelerator != qemu.KVM || v.Booted {
				t.Fatalf("before any boot it is %v", v)
			}
			var v Verdict
			for _, err := range c.boots {
				v = j.Confirm(program, err)
			}
			if v.Accelerator != c.accelerator || v.Booted != c.booted {
				t.Errorf("got %+v", v)
			}
			for _, again := range []*Judge{j, judge(a, file)} {
				if got := again.Choose(t.Context(), program); got != v {
					t.Errorf("it said %v, and then %v", v, got)
				}
			}
		})
	}
}

// TestThisHost is the real loop. What the answer is depends on the host; that there is
// one, in time, does not.
func TestThisHost(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	v, sure := Try(t.Context(), self)
	t.Logf("%v (sure: %v) after %v", v, sure, time.Since(start).Round(time.Millisecond))
	if v.Accelerator != qemu.KVM && v.Accelerator != qemu.TCG || v.Reason == "" || strings.Contains(v.Reason, "not tried") {
		t.Errorf("got %+v", v)
	}
	require.Host(t, "kvm", v.Accelerator == qemu.KVM, v.Reason)
}
