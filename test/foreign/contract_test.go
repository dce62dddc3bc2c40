package foreign

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// The rows of the contract that hold for a system without an agent: docs/contract.md lists
// them apart. Small systems keep them, so that each takes seconds: boot sectors of a few
// bytes, and the Linux of linux(t) where something has to answer from inside.

// bootSector is the image of a disk that begins with code.
func bootSector(t *testing.T, code ...byte) string {
	t.Helper()
	image := make([]byte, 1<<20)
	copy(image, code)
	image[510], image[511] = 0x55, 0xaa
	return file(t, "sector.raw", image)
}

// deaf waits for ever, whatever is pressed.
var deaf = []byte{0xfb, 0xf4, 0xeb, 0xfd} // sti; hlt; again

// over turns the machine off at once. Source: SeaBIOS, src/fw/dev-q35.h: power management's
// ports begin at 0x600, and four further on is what sleeps.
var over = []byte{0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4}

// keeps says on the serial line what character its disk holds, and puts the next key that is
// typed there.
var keeps = []byte{
	0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x52, // no segments; the disk's number on the stack
	0xbb, 0x00, 0x80, 0xb8, 0x01, 0x02, 0xb9, 0x02, 0x00, 0xb6, 0x00, 0xcd, 0x13, // sector 2 to 0x8000
	0xba, 0xf8, 0x03, 0xb0, '<', 0xee, 0xa0, 0x00, 0x80, 0xee, 0xb0, '>', 0xee, // <x>
	0xb4, 0x00, 0xcd, 0x16, 0xa2, 0x00, 0x80, // a key
	0x5a, 0x52, 0xbb, 0x00, 0x80, 0xb8, 0x01, 0x03, 0xb9, 0x02, 0x00, 0xb6, 0x00, 0xcd, 0x13, // to sector 2
	0xba, 0xf8, 0x03, 0xb0, '!', 0xee, 0xf4, 0xeb, 0xfd, // !, and nothing more
}

// until waits for what ok tells.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(require.Patience(60 * time.Second)); !ok(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain was waited until %s", what)
		}
	}
}

func TestContractOfASystemThatAnswers(t *testing.T) {
	b := start(t)
	port := strconv.Itoa(20000 + os.Getpid()%10000)
	began := time.Now().Add(-time.Second)
	b.Run("run", "--name", "lin", "--os", "linux", "--memory", "256M", "-p", port+":80", "--disk-image", linux(t))
	hears(t, b, "lin", 0, `devices: eth0\.`)
	page := func() (got string) {
		b.Host(func() {
			conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 2*time.Second)
			if err != nil {
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
			all, _ := io.ReadAll(conn) // what there is of it
			got = string(all)
		})
		return got
	}
	own := show(t, b, "lin").Network
	t.Run("address", func(t *testing.T) {
		hears(t, b.For(t), "lin", 0, `eth0 has `+regexp.QuoteMeta(own.IPv4)+`\.`)
	})
	t.Run("dns", func(t *testing.T) {
		if out := b.For(t).Try("run", "--rm", "--stratum", "zone", "busybox", "nslookup", "lin"); !strings.Contains(out.Stdout, own.IPv4) {
			t.Errorf("its name is not known: %+v", out)
		}
	})
	t.Run("published-port", func(t *testing.T) {
		until(t, "the port answers", func() bool { return strings.Contains(page(), "a page of a foreign system") })
	})
	t.Run("limit-memory", func(t *testing.T) {
		found := regexp.MustCompile(`(\d+) MB`).FindStringSubmatch(serialLine(b, "lin"))
		if mb, _ := strconv.Atoi(found[1]); mb < 180 || mb > 256 {
			t.Errorf("inside there are %d MB", mb)
		}
	})
	t.Run("clock", func(t *testing.T) {
		found := regexp.MustCompile(`(\d+) seconds`).FindStringSubmatch(serialLine(b, "lin"))
		if at, _ := strconv.ParseInt(found[1], 10, 64); at < began.Unix() || at > time.Now().Unix() {
			t.Errorf("its clock said %d, between %d and %d", at, began.Unix(), time.Now().Unix())
		}
	})
	t.Run("exec-refused", func(t *testing.T) {
		if out := b.For(t).Try("exec", "lin", "true"); out.Status == 0 || !strings.Contains(out.Stderr, "nothing of strata's is inside") {
			t.Errorf("%+v", out)
		}
	})
	t.Run("pause", func(t *testing.T) {
		b := b.For(t)
		b.Run("pause", "lin")
		if got := page(); strings.Contains(got, "a page") {
			t.Errorf("while it is paused it answers %q", got)
		}
		b.Run("resume", "lin")
		until(t, "it answers again", func() bool { return strings.Contains(page(), "a page") })
	})
	t.Run("stop", func(t *testing.T) {
		b := b.For(t)
		b.Run("stop", "lin")
		e := show(t, b, "lin")
		if e.State != api.Stopped || e.Exit == nil || e.Exit.Signal != 0 || e.Exit.Crash != "" {
			t.Errorf("it was stopped: %s %+v", e.State, e.Exit)
		}
		if !strings.Contains(serialLine(b, "lin"), "the button was pressed.") {
			t.Errorf("it has not seen the button: %s", serialLine(b, "lin"))
		}
	})
	t.Run("address-for-life", func(t *testing.T) {
		b := b.For(t)
		at := len(serialLine(b, "lin"))
		b.Run("start", "lin")
		hears(t, b, "lin", at, `eth0 has `+regexp.QuoteMeta(own.IPv4)+`\.`)
		if now := show(t, b, "lin").Network; now != own {
			t.Errorf("address changed from %+v to %+v", own, now)
		}
	})
	b.Run("rm", "-f", "lin")
}

func TestContractOfASystemThatSaysNothing(t *testing.T) {
	b := start(t)
	run := func(t *testing.T, name string, code []byte, flags ...string) {
		t.Helper()
		args := append([]string{"run", "--name", name, "--memory", "32M", "--disk-image", bootSector(t, code...)}, flags...)
		b.For(t).Run(args...)
		t.Cleanup(func() { b.Try("rm", "-f", name) })
	}
	t.Run("kill", func(t *testing.T) {
		run(t, "deaf", deaf)
		b := b.For(t)
		b.Run("kill", "deaf")
		if e := show(t, b, "deaf"); e.State != api.Stopped || e.Exit == nil || e.Exit.Signal != 9 || e.Exit.Crash != "" {
			t.Errorf("%s %+v", e.State, e.Exit)
		}
	})
	t.Run("limits-live", func(t *testing.T) {
		run(t, "deaf", deaf)
		b := b.For(t)
		b.Run("set", "deaf", "cpu.weight=300", "cpu.guarantee=0.2", "cpus=0.5")
		if r := show(t, b, "deaf").Spec.Resources; r.CPUWeight != 300 || r.CPUGuarantee != 200 || r.CPUs != 500 {
			t.Errorf("%+v", r)
		}
		if got := quota(t, b, "deaf"); got != "50000" {
			t.Errorf("of 100 ms its processes may take %q µs", got)
		}
		if out := b.Try("set", "deaf", "memory=64M"); out.Status == 0 || !strings.Contains(out.Stderr, "stays as it is while it runs") {
			t.Errorf("more memory while it runs: %+v", out)
		}
	})
	t.Run("stop-grace", func(t *testing.T) {
		run(t, "deaf", deaf)
		b, began := b.For(t), time.Now()
		b.Run("stop", "--time", "2s", "deaf")
		if e := show(t, b, "deaf"); time.Since(began) < 2*time.Second || e.State != api.Stopped || e.Exit.Signal != 9 || e.Exit.Crash != "" {
			t.Errorf("after %v: %s %+v", time.Since(began), e.State, e.Exit)
		}
	})
	t.Run("exit-status", func(t *testing.T) {
		run(t, "over", over)
		until(t, "it is over", func() bool { return show(t, b.For(t), "over").State == api.Stopped })
		if e := show(t, b.For(t), "over"); e.Exit == nil || e.Exit.Status != 0 || e.Exit.Crash != "" {
			t.Errorf("%+v", e.Exit)
		}
	})
	t.Run("restart-policy", func(t *testing.T) {
		run(t, "over", over, "--restart", "always")
		until(t, "it has started again twice", func() bool { return show(t, b.For(t), "over").Restarts >= 2 })
		b.For(t).Run("stop", "--time", "0s", "over")
		restarts := show(t, b.For(t), "over").Restarts
		time.Sleep(3 * time.Second) // that nothing happens is what is looked for
		if e := show(t, b.For(t), "over"); e.State != api.Stopped || e.Restarts != restarts {
			t.Errorf("after a stop: %s, %d restarts, before %d", e.State, e.Restarts, restarts)
		}
	})
	t.Run("auto-remove", func(t *testing.T) {
		run(t, "over", over, "--rm")
		until(t, "it is gone", func() bool { return b.Try("show", "over").Status != 0 })
	})
	t.Run("disk-for-life", func(t *testing.T) {
		run(t, "keeps", append(append([]byte{}, keeps...), zeros(512-len(keeps), 'o')...))
		b := b.For(t)
		at := hears(t, b, "keeps", 0, `<o>`)
		b.Run("type", "keeps", "x")
		at = hears(t, b, "keeps", at, `!`)
		b.Run("kill", "keeps")
		b.Run("start", "keeps")
		hears(t, b, "keeps", at, `<x>`)
	})
	t.Run("network-none", func(t *testing.T) {
		run(t, "alone", deaf, "--network", "none")
		if e := show(t, b.For(t), "alone"); fmt.Sprint(e.Network) != fmt.Sprint(api.Address{}) {
			t.Errorf("%+v", e.Network)
		}
	})
}

// quota is what the kernel lets the processes of an environment take in each 100 ms.
func quota(t *testing.T, b *bed.Bed, name string) string {
	t.Helper()
	group := b.Places.Name("strata") + "/" + show(t, b, name).ID + ".hw/"
	for _, pattern := range []string{"/sys/fs/cgroup/cpu*/" + group + "cpu.cfs_quota_us", "/sys/fs/cgroup/" + group + "cpu.max"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Fields(string(text))[0]
		}
	}
	return ""
}

// zeros fills a sector, and begins the next one with a character.
func zeros(n int, next byte) []byte { return append(make([]byte, n), next) }
