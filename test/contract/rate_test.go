package contract

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// networkRate has an environment send to the host and receive from it, once at the rate
// that it was given and once without.
func networkRate(t *testing.T, a at) {
	var out, in net.Listener
	var err error
	a.Host(func() {
		if out, err = net.Listen("tcp4", ":0"); err == nil {
			in, err = net.Listen("tcp4", ":0")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close(); in.Close() })
	go pour(in)
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	// What a quiet link has saved up goes first: a second's worth, and a little.
	name := a.start(t, fmt.Sprintf(`gw=$(ip route | sed -n 's/^default via \([^ ]*\).*/\1/p')
		nc $gw %d </dev/null | { head -c 786432; for i in 0 1 2 3 4 5 6 7 8 9; do test -e /tmp/enough && break; echo at$i >&3; head -c 1048576; done; } 3>&1 >/dev/null
		nc $gw %d </dev/zero >/dev/null
		sleep 1000`, port(in), port(out)), "--net-in", "512K", "--net-out", "512K")
	said := func(word string) time.Time {
		t.Helper()
		until(t, "it has received enough: "+word, 30*time.Second, func() bool { return strings.Contains(a.Run("logs", name), word) })
		return time.Now()
	}
	// A busy host slows it down for a while, and sees a word later than it was said, so that
	// the time until the next looks short: one of them at the rate is enough.
	before, met := said("at0"), false
	var took []time.Duration
	for _, word := range []string{"at1", "at2", "at3", "at4", "at5", "at6", "at7", "at8", "at9"} {
		now := said(word)
		took, before = append(took, now.Sub(before)), now
		if s := took[len(took)-1].Seconds(); s >= 2/1.2 && s <= 2/0.8 {
			met = true
			break
		}
	}
	a.exec(t, name, "touch /tmp/enough")
	if !met {
		t.Errorf("a MiB was received in %v; want 2 seconds within a fifth", took)
	}
	from, err := out.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	count(t, from, 1200*time.Millisecond)
	// Again: on a busy host it is slower than it may be for a while, and what it has saved up
	// then follows.
	var limited, free float64
	near := func() bool { return limited >= 0.8*(1<<19) && limited <= 1.2*(1<<19) }
	for tries := 0; !near() && tries < 10; tries++ {
		limited = count(t, from, 2*time.Second)
	}
	if !near() {
		t.Errorf("%.0f bytes a second were sent; want half a MiB within a fifth", limited)
	}
	a.Run("set", name, "net.out=0")
	for tries := 0; free < 3*limited && tries < 10; tries++ {
		free = count(t, from, 2*time.Second)
	}
	if free < 3*limited {
		t.Errorf("%.0f bytes a second are sent without a limit, %.0f were with one", free, limited)
	}
	if table := a.Run("resources", name); !strings.Contains(table, "net-in") {
		t.Errorf("no rates are shown:\n%s", table)
	}
}

// pour sends without end to whoever connects.
func pour(l net.Listener) {
	b := make([]byte, 64<<10)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		for err == nil {
			_, err = c.Write(b)
		}
		c.Close()
	}
}

// count reads for a while and returns how many bytes came in a second.
func count(t *testing.T, c net.Conn, d time.Duration) float64 {
	t.Helper()
	b := make([]byte, 64<<10)
	n, start := 0, time.Now()
	if err := c.SetReadDeadline(start.Add(d)); err != nil {
		t.Fatal(err)
	}
	for {
		got, err := c.Read(b)
		n += got
		if err == nil {
			continue
		}
		if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
			t.Fatal(err)
		}
		return float64(n) / time.Since(start).Seconds()
	}
}
