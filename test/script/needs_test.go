package script

import (
	"regexp"
	"testing"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// TestNeedsOfGuests runs what a zone cannot: a kernel's module, and memory that is
// written down.
func TestNeedsOfGuests(t *testing.T) {
	require.Root(t)
	require.Machines(t)
	require.Tool(t, "qemu-system-x86_64")
	b := bed.New(t)
	bed.Kernel(t, b)
	b.Run("run", "-d", "--name", "web", "--memory", "128M", "--need", "checkpoint", "--module", "tun", "--module", "nft-ct", "busybox",
		"sh", "-c", "n=0; while :; do n=$((n+1)); echo $n > /tmp/n; sleep 0.1; done")
	says(t, b.Run("why", "web"), "stratum: +guest", "need: +checkpoint .asked", "need: +kernel-modules .--module", "the need checkpoint calls for it")
	says(t, b.Run("exec", "web", "sh", "-c", "cut -d' ' -f1 /proc/modules; cat /proc/sys/kernel/random/boot_id"), `(?m)^tun$`, `(?m)^nft_ct$`)
	boot := b.Run("exec", "web", "cat", "/proc/sys/kernel/random/boot_id")
	b.Run("suspend", "web")
	says(t, b.Run("show", "web"), "suspended")
	b.Run("resume", "web")
	if again := b.Run("exec", "web", "cat", "/proc/sys/kernel/random/boot_id"); again != boot {
		t.Errorf("it booted anew: %s, before %s", again, boot)
	}
	b.Run("rm", "-f", "web")
	if out := b.Try("plan", "--iso", "/no/such.iso"); out.Status != 3 {
		t.Errorf("a plan with a CD that is not there: exit status %d\n%s", out.Status, out.Stdout)
	} else {
		says(t, out.Stderr, "no image /no/such.iso", "foreign.iso")
	}
	for what, c := range map[string]struct {
		flags []string
		words string
	}{
		"a module that the kernel has not": {[]string{"--module", "no_such"}, "no_such.*strata kernel"},
		"a module in a zone":               {[]string{"--stratum", "zone", "--module", "tun"}, "kernel-modules of the option --module.*too shallow"},
		"memory that goes at its end":      {[]string{"--rm", "--need", "checkpoint"}, "checkpoint.*--rm"},
		"a screen in a guest":              {[]string{"--stratum", "guest", "--console", "graphical"}, "graphical-console.*too shallow"},
	} {
		out := b.Try(append(append([]string{"run", "--name", "no"}, c.flags...), "busybox", "true")...)
		if out.Status == 0 {
			t.Errorf("%s runs", what)
		}
		says(t, out.Stderr, "(?s)"+c.words)
		b.Try("rm", "-f", "no")
	}
}

// says holds that text has something that each expression describes.
func says(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !regexp.MustCompile(w).MatchString(text) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}
