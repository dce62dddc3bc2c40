package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/require"
	"golang.org/x/sys/unix"
)

// guest is a process with a network namespace of its own, as an environment's first one is.
type guest struct {
	t       testing.TB
	id      string
	pid     int
	address Address
}

func startGuest(t testing.TB, id string) *guest {
	t.Helper()
	cmd := exec.Command("sleep", "120")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &guest{t: t, id: id, pid: cmd.Process.Pid}
}

// within runs f on a thread that is in the guest's namespace, and thrown away after it.
func (g *guest) within(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the main thread cannot be thrown away
			defer runtime.UnlockOSThread()
			done <- g.within(f)
			return
		}
		ns, err := namespaceOf(g.pid)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// run executes a program in the guest's namespace and returns what it said.
func (g *guest) run(words ...string) (string, error) {
	var out []byte
	err := g.within(func() (err error) {
		out, err = exec.Command(words[0], words[1:]...).CombinedOutput()
		return err
	})
	return string(out), err
}

func (g *guest) must(words ...string) string {
	g.t.Helper()
	out, err := g.run(words...)
	if err != nil {
		g.t.Fatalf("in %s: %s: %v\n%s", g.id, strings.Join(words, " "), err, out)
	}
	return out
}

func host(t testing.TB, words ...string) string {
	t.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

func open(t testing.TB, tag string) *Host {
	t.Helper()
	dir := t.TempDir()
	h, err := Open(t.Context(), Options{Tag: tag, Dir: dir + "/networks", RunDir: dir + "/run"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// join starts a guest, gives it an address and connects it.
func join(t testing.TB, h *Host, network string, number int, ports ...Port) *guest {
	t.Helper()
	g := startGuest(t, fmt.Sprintf("%012x", number))
	var err error
	if g.address, err = h.Allocate(network, g.id, fmt.Sprintf("guest%d", number)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Connect(t.Context(), g.id, g.pid, g.address, ports); err != nil {
		t.Fatal(err)
	}
	return g
}

func loopbackUp(t testing.TB) {
	t.Helper()
	h := open(t, "up")
	if err := h.LoopbackOnly(t.Context(), os.Getpid()); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f holds; what it waits for has no event to wait on.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("waited in vain: %s", what)
}

// onHost is the namespace that the test runs in.
func onHost(t testing.TB) *guest { return &guest{t: t, id: "host", pid: os.Getpid()} }

// serve answers every connection or datagram with "NAME from ADDRESS of who asks".
func (g *guest) serve(network, at, name string) {
	g.t.Helper()
	err := g.within(func() error {
		if strings.HasPrefix(network, "udp") {
			c, err := net.ListenPacket(network, at)
			if err != nil {
				return err
			}
			g.t.Cleanup(func() { c.Close() })
			go func() {
				b := make([]byte, 512)
				for {
					_, from, err := c.ReadFrom(b)
					if err != nil {
						return
					}
					fmt.Fprintf(packetTo{c, from}, "%s from %s", name, hostOf(from))
				}
			}()
			return nil
		}
		l, err := net.Listen(network, at)
		if err != nil {
			return err
		}
		g.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s from %s", name, hostOf(c.RemoteAddr()))
				c.Close()
			}
		}()
		return nil
	})
	if err != nil && !errors.Is(err, unix.EADDRINUSE) {
		g.t.Fatalf("serve in %s: %v", g.id, err)
	}
}

type packetTo struct {
	c  net.PacketConn
	to net.Addr
}

func (p packetTo) Write(b []byte) (int, error) { return p.c.WriteTo(b, p.to) }

func hostOf(a net.Addr) string {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return err.Error()
	}
	return p.Addr().Unmap().String()
}

// ask connects from the guest and returns what is said there.
func (g *guest) ask(network, to string) (said string, err error) {
	err = g.within(func() error {
		c, err := net.DialTimeout(network, to, 400*time.Millisecond)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
			return err
		}
		b := make([]byte, 512)
		if network == "udp" {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
		n, err := c.Read(b)
		said = string(b[:n])
		return err
	})
	return said, err
}

func (g *guest) wants(network, to, want string) {
	g.t.Helper()
	said, err := g.ask(network, to)
	// On a busy host a neighbour may answer late, and is asked again after a second only.
	for end := time.Now().Add(require.Patience(5 * time.Second)); err != nil && time.Now().Before(end); {
		said, err = g.ask(network, to)
	}
	if err != nil || said != want {
		g.t.Errorf("%s asks %s %s: %q, %v; want %q", g.id, network, to, said, err, want)
	}
}

// fails wants that nobody answers.
func (g *guest) fails(network, to string) {
	g.t.Helper()
	if said, err := g.ask(network, to); err == nil {
		g.t.Errorf("%s reaches %s %s, which said %q", g.id, network, to, said)
	}
}

func wants(t testing.TB, network, to, want string) {
	t.Helper()
	onHost(t).wants(network, to, want)
}

func addr(a Address, version string) string {
	if version == "6" {
		return a.IPv6.String()
	}
	return a.IPv4.String()
}

func at(a Address, version string, port int) string {
	return net.JoinHostPort(addr(a, version), fmt.Sprint(port))
}

func listenPacket(at string) (net.PacketConn, error) { return net.ListenPacket("udp", at) }

func listen(at string) (net.Listener, error) { return net.Listen("tcp", at) }
