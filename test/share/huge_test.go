package share

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/test/bed"
)

// huge are the host's huge pages of 2 MiB that nobody has.
func huge(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	if os.IsNotExist(err) {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAGuestLiesInHugePages has QEMU, confined as it always is, take its memory from the
// host's huge pages, with a volume, whose server shares that memory (without one is what
// internal/qemu/machine looks at). The test makes no pages: whoever runs it does, on a
// machine of his own (scripts/test-v2 --nested).
func TestAGuestLiesInHugePages(t *testing.T) {
	const memory = 128 // MiB
	free := huge(t)
	require.Host(t, "hugepages", free >= memory/2, fmt.Sprintf("%d huge pages are free; sysctl vm.nr_hugepages makes some", free))
	b := bed.New(t)
	bed.Kernel(t, b)
	shared := b.Places.Root + "/shared"
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	b.Run("run", "-d", "--name", "g", "--stratum", "guest", "--memory", fmt.Sprint(memory, "M"), "--hugepages", "2M", "-v", shared+":/shared", "busybox", "sleep", "100000")
	taken := free - huge(t)
	t.Logf("%d huge pages are taken", taken)
	if taken < memory/2 { // the machine's size is that of the limit or more
		t.Errorf("%d huge pages are taken by a guest of %d MiB", taken, memory)
	}
	b.Run("exec", "g", "sh", "-c", "dd if=/dev/zero of=/tmp/f bs=1M count=20 && cat /tmp/f >/dev/null")
	b.Run("exec", "g", "sh", "-c", "echo kept > /shared/word")
	if text, err := os.ReadFile(shared + "/word"); err != nil || string(text) != "kept\n" {
		t.Errorf("the volume holds %q, %v", text, err)
	}
	b.Run("rm", "-f", "g")
	for end := time.Now().Add(require.Patience(30 * time.Second)); huge(t) != free; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("of %d free huge pages %d are left after its end", free, huge(t))
		}
	}
	tooMuch := fmt.Sprint(2*free+64, "M")
	if out := b.Try("run", "-d", "--name", "large", "--stratum", "guest", "--memory", tooMuch, "--hugepages", "2M", "busybox", "sleep", "1"); out.Status == 0 ||
		!strings.Contains(out.Stderr, "vm.nr_hugepages") {
		t.Errorf("a guest of %s, more than there is: %+v", tooMuch, out)
	}
}
