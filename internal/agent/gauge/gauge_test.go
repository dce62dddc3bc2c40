package gauge

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == Command { // the part process starts this very program
		os.Exit(Run(os.Args[2]))
	}
	os.Exit(m.Run())
}

func TestWhatIsAskedIsChecked(t *testing.T) {
	for arg, ok := range map[string]bool{
		"hello:1": true, "cpu:100": true, "disk:100:/tmp": true, "rest:3600000": true,
		"": false, "cpu": false, "cpu:": false, "cpu:0": false, "cpu:-1": false, "cpu:1s": false, "cpu:3600001": false, "gpu:1": false, "disk:100": false, "disk:100:tmp": false,
	} {
		if _, _, err := parse(arg); (err == nil) != ok {
			t.Errorf("%q: %v, want it taken: %v", arg, err, ok)
		}
	}
}

// figures runs a part and returns what it tells.
func figures(t *testing.T, arg string) map[string]float64 {
	t.Helper()
	measure, j, err := parse(arg)
	if err != nil {
		t.Fatal(err)
	}
	if err := measure(j); err != nil {
		t.Fatalf("%s: %v", arg, err)
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(j.out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if found[name], err = strconv.ParseFloat(value, 64); err != nil || found[name] <= 0 {
			t.Errorf("%s tells %q", arg, line)
		}
	}
	return found
}

func TestEveryPartTellsItsFigures(t *testing.T) {
	dir := t.TempDir()
	for arg, names := range map[string]string{
		"hello:1": "", "cpu:20": "cpu", "memory:20": "memory-access", "syscall:20": "syscall", "process:20": "process",
		"disk:80:" + dir: "disk-write disk-read disk-fsync",
	} {
		found := figures(t, arg)
		for _, name := range strings.Fields(names) {
			if found[name] == 0 {
				t.Errorf("%s tells nothing of %s: %v", arg, name, found)
			}
		}
		if names == "" && len(found) > 0 {
			t.Errorf("%s tells %v", arg, found)
		}
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestTheNetworkServesWhatIsAsked(t *testing.T) {
	l, port, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	j := &job{budget: 10 * time.Second}
	over := make(chan bool)
	go func() {
		buf := make([]byte, 4096)
		for done := false; !done; {
			c, _, err := unix.Accept(l)
			if err != nil {
				break
			}
			done = j.serve(c, buf)
			unix.Close(c)
		}
		close(over)
	}()
	dial := func(what string) *net.TCPConn {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write([]byte(what)); err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
	echo := dial("eabc")
	back := make([]byte, 3)
	if _, err := io.ReadFull(echo, back); err != nil || string(back) != "abc" {
		t.Errorf("sent back: %q, %v", back, err)
	}
	echo.Close()
	sink := dial("s" + strings.Repeat("x", 100000))
	_ = sink.CloseWrite()
	if got, err := io.ReadAll(sink); err != nil || len(got) != 1 {
		t.Errorf("all was read, answered %q, %v", got, err)
	}
	sink.Close()
	source := dial("g")
	if _, err := io.CopyN(io.Discard, source, 1<<20); err != nil {
		t.Errorf("sent: %v", err)
	}
	source.Close()
	dial("q").Close()
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		t.Error("it does not end")
	}
	unix.Close(l)
}

// TestMemoryIsWalkedWhole: the chain comes back to where it began after all lines, not before.
func TestMemoryIsWalkedWhole(t *testing.T) {
	const lines = walked / line
	n, at := 0, uint32(0)
	for {
		at = (at*multiplier + increment) % lines
		if n++; at == 0 || n > lines {
			break
		}
	}
	if n != lines {
		t.Errorf("it comes back after %d of %d lines", n, lines)
	}
}
