package vmagent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/agent/program"
	"github.com/strata-project/strata/internal/keeper/wire"
)

func TestSerialPortsAreFoundByWhereTheyAre(t *testing.T) {
	type uart struct{ kind, port string }
	for sentence, c := range map[string]struct {
		there            map[string]uart
		control, streams string
	}{
		"both":                         {map[string]uart{"ttyS0": {"4", "0x3F8"}, "ttyS2": {"4", "0x3E8"}, "ttyS3": {"4", "0x2E8"}}, "ttyS2", "ttyS3"},
		"both, numbered otherwise":     {map[string]uart{"ttyS7": {"4", "0x3E8"}, "ttyS1": {"4", "0x2E8"}}, "ttyS7", "ttyS1"},
		"one of them alone":            {map[string]uart{"ttyS2": {"4", "0x3E8"}}, "", ""},
		"names without ports":          {map[string]uart{"ttyS2": {"0", "0x3E8"}, "ttyS3": {"0", "0x2E8"}}, "", ""},
		"terminals that are no serial": {map[string]uart{"tty2": {"4", "0x3E8"}, "tty3": {"4", "0x2E8"}}, "", ""},
		"nothing":                      {},
	} {
		class := t.TempDir()
		for name, u := range c.there {
			dir := filepath.Join(class, name)
			err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "type"), []byte(u.kind+"\n"), 0o644), os.WriteFile(filepath.Join(dir, "port"), []byte(u.port+"\n"), 0o644))
			if err != nil {
				t.Fatal(err)
			}
		}
		if control, streams := serialPorts(class); control != c.control || streams != c.streams {
			t.Errorf("%s: %q and %q", sentence, control, streams)
		}
	}
}

func TestASerialPortIsOneProcesss(t *testing.T) {
	path := filepath.Join(t.TempDir(), "port")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func() *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first, second := open(), open()
	defer second.Close()
	if err := claim(int(first.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := claim(int(second.Fd())); err != unix.EBUSY {
		t.Errorf("a second one gets %v", err)
	}
	first.Close()
	if err := claim(int(second.Fd())); err != nil {
		t.Errorf("once the first has gone: %v", err)
	}
}

// TestARawPortPassesEveryByte stands a terminal in for the serial port.
func TestARawPortPassesEveryByte(t *testing.T) {
	pair, err := program.OpenTerminal(&wire.Process{TTY: true}, 0)
	if err != nil {
		t.Fatal(err)
	}
	host, ours := os.NewFile(uintptr(pair.Master), "host"), os.NewFile(uintptr(pair.Slave), "ours")
	defer host.Close()
	defer ours.Close()
	if _, err := host.WriteString("noise\x03\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := raw(pair.Slave); err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	if _, err := host.Write(all); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 512)
	for in := ""; !strings.HasSuffix(in, string(all)); { // noise may have been under way
		n, err := ours.Read(got)
		if in += string(got[:n]); err != nil || len(in) > len(got) {
			t.Fatalf("%v: %q came in", err, in)
		}
	}
	if _, err := unix.Write(pair.Slave, all); err != nil {
		t.Fatal(err)
	}
	sent(pair.Slave, time.Second)
	var back []byte
	for len(back) < len(all) {
		n, err := unix.Read(pair.Master, got)
		if err == unix.EAGAIN {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		back = append(back, got[:n]...)
	}
	if s := string(back); len(s) < len(all) || s[len(s)-len(all):] != string(all) { // what was echoed before comes first
		t.Errorf("%q came out", s)
	}
}
