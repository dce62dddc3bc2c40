package foreign

import (
	"bytes"
	"context"
	"io"
	"os"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// line is a conversation over a system's serial line.
type line struct {
	t    *testing.T
	in   io.WriteCloser
	mu   sync.Mutex
	said bytes.Buffer // since what was last waited for
}

// Write implements io.Writer, for what the system says.
func (l *line) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.Write(p)
}

// join joins a system's console for as long as the test runs.
func join(t *testing.T, b *bed.Bed, name string) *line {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := b.Command(ctx, "console", "-i", name)
	l := &line{t: t}
	cmd.Stdout = l
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	l.in = in
	t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // it was killed, if it had not ended
	return l
}

// hears waits until the system says what matches, and returns that with its groups.
func (l *line) hears(pattern string, bound time.Duration) []string {
	l.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(require.Patience(bound)); ; time.Sleep(200 * time.Millisecond) {
		l.mu.Lock()
		text := l.said.String()
		at := re.FindStringSubmatchIndex(text)
		var found []string
		if at != nil {
			found = re.FindStringSubmatch(text)
			l.said.Next(at[1])
		}
		l.mu.Unlock()
		if found != nil {
			return found
		}
		if time.Now().After(end) {
			l.t.Fatalf("the serial line does not say %q in %v, but:\n%s", pattern, bound, text[max(0, len(text)-4<<10):])
		}
	}
}

func (l *line) types(text string) {
	l.t.Helper()
	if _, err := l.in.Write([]byte(text)); err != nil {
		l.t.Fatal(err)
	}
}

// login logs in as root where Debian's login is offered.
func (l *line) login() {
	l.t.Helper()
	l.hears(`stock login: `, slow)
	l.types("root\n")
	l.hears(`Password: `, slow)
	l.types("strata\n")
	l.hears(`root@stock:~# `, slow)
}

// slow is how long an emulated computer with other work beside it may take for what takes
// a real one seconds.
const slow = 15 * time.Minute

// TestADebianDiskBootsBySecureBoot goes by the shim that Microsoft has signed, GRUB and
// kernel that Debian has, and the keys that OVMF has.
func TestADebianDiskBootsBySecureBoot(t *testing.T) {
	b := start(t)
	_, err := os.Stat("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
	require.Host(t, "ovmf", err == nil, "the package ovmf is not installed")
	disk := stock(t)
	began := time.Now()
	b.Run("run", "--name", "stock", "--os", "linux", "--memory", "512M", "--firmware", "secure", "--disk-image", disk)
	l := join(t, b, "stock")
	l.hears(`Secure boot enabled`, slow)
	l.login()
	t.Logf("logged in after %v", time.Since(began).Round(time.Second))
	l.types("ls -d /sys/firmware/efi/efivars; cat /sys/kernel/security/lockdown\n")
	l.hears(`\[integrity\]`, slow)
	b.Run("rm", "-f", "stock")
}
