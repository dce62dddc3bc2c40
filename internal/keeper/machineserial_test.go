package keeper

import (
	"testing"

	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/vmagent/port"
	"golang.org/x/sys/unix"
)

// TestAnAgentBehindASerialPortIsCalledUntilItAnswers loses the first call, as such a port
// does, and answers the second one too late.
func TestAnAgentBehindASerialPortIsCalledUntilItAnswers(t *testing.T) {
	s := newMachine(t)
	s.Stdin = true
	c, conn := pipe(t)
	b, err := plugAs(t, s, conn, &Machine{Serial: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	started := b.goes()
	c.send(stream.Stdin, []byte("early"))
	seen := map[uint64]bool{}
	call := func() (number uint64) {
		t.Helper()
		h, p := b.hear()
		_, number, err := port.ParseHello(p)
		if h.Type != port.Hello || err != nil || seen[number] {
			t.Fatalf("the keeper says %+v, %v before it is answered; number %d was there: %v", h, err, number, seen[number])
		}
		seen[number] = true
		return number
	}
	call()
	late := call()
	last := call()
	b.say(port.Hello, 0, port.HelloPayload(late))
	b.say(port.Stdout, 0, []byte("of a meeting that is over"))
	if _, err := b.streams.Write([]byte("noise\x05")); err != nil {
		t.Fatal(err)
	}
	b.say(port.Hello, 0, port.HelloPayload(last))
	b.say(port.Started, 0, nil)
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	b.hears(port.Stdin, 0, "early")
	c.send(stream.Stdin, []byte("more"))
	b.hears(port.Stdin, 0, "more")
	b.say(port.Stdout, 0, []byte("out"))
	b.say(port.Exit, 0, []byte{0, 0, 0, 0, 0})
	b.hears(port.Taken, 0, "")
	b.off(unix.SIGUSR1)
	if out, _, _ := c.rest(); string(out) != "out" {
		t.Errorf("%q came out", out)
	}
	b.end()
}
