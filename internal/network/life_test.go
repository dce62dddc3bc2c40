package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/network/dns"
	"github.com/strata-project/strata/internal/network/internal/fresh"
	"github.com/strata-project/strata/internal/require"
	"golang.org/x/sys/unix"
)

// actAsDNS, set to a folder, makes the test's program the answering process.
const actAsDNS = "STRATA_TEST_DNS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(actAsDNS); dir != "" {
		if err := dns.Run(context.Background(), dns.Config{Dir: dir, ResolvConf: dir + "/resolv.conf", Ready: os.Stdout}); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// nothingLeft wants neither links nor tables of strata's.
func nothingLeft(t *testing.T) {
	t.Helper()
	for _, line := range strings.Split(host(t, "ip", "-o", "link"), "\n") {
		if strings.Contains(line, ": sv") || strings.Contains(line, ": st") {
			t.Error("left behind:", line)
		}
	}
	if said := host(t, "nft", "list", "tables"); strings.Contains(said, "strata") {
		t.Error("left behind:", said)
	}
}

func TestNothingIsTouchedBeforeTheFirstConnectAndNothingLeftAfterDestroy(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	before := sysctl("ipv4/ip_forward") // a new namespace has what the host has
	h := open(t, "")
	if _, err := h.Allocate(Default, "0000000000aa", "a"); err != nil {
		t.Fatal(err)
	}
	if err := h.Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t)
	if now := sysctl("ipv4/ip_forward"); now != before {
		t.Error("forwarding was", before, "and is", now)
	}
	if _, err := h.Create(t.Context(), Network{Name: "other"}); err != nil {
		t.Fatal(err)
	}
	a := join(t, h, Default, 1, tcp(8080, 80))
	join(t, h, "other", 2)
	if err := h.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t)
	if err := h.Destroy(t.Context()); err != nil {
		t.Error("twice:", err)
	}
	g := startGuest(t, a.id)
	if _, err := h.Connect(t.Context(), a.id, g.pid, a.address, nil); err != nil {
		t.Error("after Destroy:", err)
	}
	if err := h.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func reopen(t *testing.T, old *Host) *Host {
	t.Helper()
	old.Close()
	h, err := Open(t.Context(), old.o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func TestConnectionsOutliveTheDaemon(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	o := outside(t)
	h := open(t, "")
	a, gone, cut := join(t, h, Default, 1, tcp(8080, 80)), join(t, h, Default, 2, tcp(8081, 80)), join(t, h, Default, 3)
	var echo net.Listener
	err := a.within(func() (err error) { echo, err = net.Listen("tcp", ":80"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for c, err := echo.Accept(); err == nil; c, err = echo.Accept() {
			go func() {
				b := make([]byte, 100)
				for n, err := c.Read(b); err == nil; n, err = c.Read(b) {
					_, _ = c.Write(b[:n])
				}
			}()
		}
	}()
	var through net.Conn
	err = o.within(func() (err error) { through, err = net.Dial("tcp", "192.0.2.2:8080"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer through.Close()
	says := func(when string) {
		t.Helper()
		b := make([]byte, 100)
		_ = through.SetDeadline(time.Now().Add(time.Second))
		_, err := through.Write([]byte(when))
		n, errRead := through.Read(b)
		if err := errors.Join(err, errRead); err != nil || string(b[:n]) != when {
			t.Fatalf("%s: %q, %v", when, b[:n], err)
		}
	}
	says("before")
	h = reopen(t, h)
	says("without a daemon")
	for _, g := range []*guest{a, gone, cut} {
		if err := h.Reserve(g.id, g.id, g.address); err != nil {
			t.Fatal(err)
		}
	}
	// One does not run any more; one runs and has lost its link.
	host(t, "ip", "link", "del", linkOf(t, cut.id))
	err = h.Sync(t.Context(), map[string]Running{
		a.id:   {PID: a.pid, Address: a.address, Ports: []Port{tcp(8080, 80)}},
		cut.id: {PID: cut.pid, Address: cut.address, Ports: []Port{tcp(8082, 80)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	says("with a new daemon")
	cut.serve("tcp", ":80", "cut")
	wants(t, "tcp", "192.0.2.2:8082", "cut from 192.0.2.2")
	if l := linkOf(t, gone.id); l != "" {
		t.Error("left behind:", l)
	}
	if said := host(t, "nft", "list", "ruleset"); strings.Contains(said, "8081") || strings.Contains(said, gone.address.IPv4.String()+" ") {
		t.Error("what does not run is still in the filter:\n", said)
	}
	if e, ok := h.PortOwner(tcp(8080, 80)); !ok || e != a.id {
		t.Error(e, ok)
	}
	// Somebody flushes everything: the next Connect puts it right, for all. Until then the kernel translates no
	// address and would answer a late acknowledgement with a reset: it is sent at once.
	sendAcknowledgement(t, through)
	host(t, "nft", "flush", "ruleset")
	join(t, h, Default, 5)
	says("after the rules were lost")
	wants(t, "tcp", "192.0.2.2:8082", "cut from 192.0.2.2")
}

func TestADaemonThatStartsLeavesNoNetworkOpenMeanwhile(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	var guests []*guest
	for i, name := range []string{"alone", "apart", "aside"} {
		if _, err := h.Create(t.Context(), Network{Name: name, Isolated: true}); err != nil {
			t.Fatal(err)
		}
		guests = append(guests, join(t, h, name, i+1))
	}
	var said strings.Builder
	h.o.Log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h = reopen(t, h)
	running := map[string]Running{}
	for _, g := range guests {
		if err := h.Reserve(g.id, "guest", g.address); err != nil {
			t.Fatal(err)
		}
		running[g.id] = Running{PID: g.pid, Address: g.address}
	}
	if err := h.Sync(t.Context(), running); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(said.String(), "put right") {
		t.Errorf("the filter was another one meanwhile:\n%s", said.String())
	}

	// Nor does one that cannot have them ready: here nobody can write down the names.
	names := filepath.Join(h.o.RunDir, "names")
	if err := errors.Join(os.Remove(names), os.MkdirAll(names+"/taken", 0o700)); err != nil {
		t.Fatal(err)
	}
	said.Reset()
	h = reopen(t, h)
	for _, g := range guests {
		if err := h.Reserve(g.id, "guest", g.address); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Sync(t.Context(), running); err == nil {
		t.Fatal("the names could be written")
	}
	if strings.Contains(said.String(), "put right") {
		t.Errorf("the filter is another one:\n%s", said.String())
	}
}

func TestASyncThatCouldNotLookIsMadeUpFor(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	a, ended := join(t, h, Default, 1, tcp(8080, 80)), join(t, h, Default, 2, tcp(8081, 80))
	a.serve("tcp", ":80", "a")
	h = reopen(t, h)
	running := map[string]Running{
		a.id:     {PID: a.pid, Address: a.address, Ports: []Port{tcp(8080, 80)}},
		ended.id: {PID: ended.pid, Address: ended.address, Ports: []Port{tcp(8081, 80)}},
	}
	for id, r := range running {
		if err := h.Reserve(id, id, r.Address); err != nil {
			t.Fatal(err)
		}
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err := h.Sync(t.Context(), running)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Fatal("it could look:", err)
	}
	n, _ := h.Network(Default)
	wants(t, "tcp", "127.0.0.1:8080", "a from "+n.Gateway4.String())
	if err := h.Disconnect(t.Context(), ended.id); err != nil {
		t.Fatal(err)
	}
	b := join(t, h, Default, 3)
	wants(t, "tcp", "127.0.0.1:8080", "a from "+n.Gateway4.String())
	b.wants("tcp", at(a.address, "4", 80), "a from "+b.address.IPv4.String())
	if id, ok := h.PortOwner(tcp(8080, 80)); !ok || id != a.id {
		t.Error(id, ok)
	}
	if id, ok := h.PortOwner(tcp(8081, 80)); ok {
		t.Error("what ended meanwhile was connected again:", id)
	}
	if err := h.Sync(t.Context(), map[string]Running{a.id: running[a.id], b.id: {PID: b.pid, Address: b.address}}); err != nil {
		t.Error(err)
	}
	wants(t, "tcp", "127.0.0.1:8080", "a from "+n.Gateway4.String())
}

// What links come and go meanwhile does not matter to who lists them.
func TestDumpsAreWholeWhileLinksChange(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	join(t, h, Default, 1)
	for i := range 40 { // more than one answer of the kernel holds
		host(t, "ip", "link", "add", fmt.Sprintf("other%d", i), "type", "bridge")
	}
	changing, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(changing)
		var r rtnl
		defer r.close()
		for {
			select {
			case <-stop:
				return
			default:
				add := &request{what: "add a link", kind: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE, body: ifinfo(0, false)}
				add.attr(unix.IFLA_IFNAME, text("passing")).nest(unix.IFLA_LINKINFO, func(q *request) { q.attr(unix.IFLA_INFO_KIND, []byte("bridge")) })
				if err := errors.Join(r.do(nil, add), r.deleteLink("passing")); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	for range 300 {
		ports, err := portsOf([]string{"strata0"})
		if err != nil || len(ports) != 1 {
			t.Fatal(ports, err)
		}
		if _, err := readFacts(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-changing
}

func sendAcknowledgement(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

func linkOf(t *testing.T, id string) string {
	t.Helper()
	ports, err := portsOf([]string{"strata0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		if strings.HasPrefix(p.name, linkPrefix+id) {
			return p.name
		}
	}
	return ""
}

func TestAnotherStratasRulesAreReplaced(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	host(t, "nft", "add table inet strata; add chain inet strata old { type filter hook input priority 0; }; add rule inet strata old drop; add set inet strata v00000000 { type inet_service; }")
	h := open(t, "")
	a := join(t, h, Default, 1, tcp(8080, 80))
	a.serve("tcp", ":80", "a")
	n, _ := h.Network(Default)
	wants(t, "tcp", "127.0.0.1:8080", "a from "+n.Gateway4.String())
	if strings.Contains(host(t, "nft", "list", "ruleset"), "chain old") {
		t.Error("the old rules are still there")
	}
}

func TestTwoRootsSideBySide(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	outside(t)
	h, o := open(t, ""), open(t, "1a2b3c")
	a, b := join(t, h, Default, 1, tcp(8080, 80)), join(t, o, Default, 0xb2, tcp(8081, 80))
	if err := o.CheckPort(tcp(8080, 80)); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "another strata root") {
		t.Error(err)
	}
	if err := h.CheckPort(tcp(9000, 80)); err != nil {
		t.Error(err)
	}
	a.serve("tcp", ":80", "a")
	b.serve("tcp", ":80", "b")
	a.fails("tcp", at(b.address, "4", 80))
	b.fails("tcp", at(a.address, "4", 80))
	wants(t, "tcp", "192.0.2.2:8080", "a from 192.0.2.2")
	wants(t, "tcp", "192.0.2.2:8081", "b from 192.0.2.2")
	a.wants("tcp", "192.0.2.1:80", "outside from 192.0.2.2")
	b.wants("tcp", "192.0.2.1:80", "outside from 192.0.2.2")
	if err := h.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, "tcp", "192.0.2.2:8081", "b from 192.0.2.2")
	b.wants("tcp", "192.0.2.1:80", "outside from 192.0.2.2")
	if err := o.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t)
}

// dockerRules are what Docker's daemon sets up that matters to others.
var dockerRules = [][]string{
	{"-P", "FORWARD", "DROP"}, {"-N", "DOCKER-USER"}, {"-N", "DOCKER"}, {"-A", "FORWARD", "-j", "DOCKER-USER"}, {"-A", "DOCKER-USER", "-j", "RETURN"},
	{"-A", "FORWARD", "-o", "docker0", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT"},
	{"-A", "FORWARD", "-o", "docker0", "-j", "DOCKER"}, {"-A", "FORWARD", "-i", "docker0", "!", "-o", "docker0", "-j", "ACCEPT"},
	{"-t", "nat", "-N", "DOCKER"}, {"-t", "nat", "-A", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "DOCKER"},
	{"-t", "nat", "-A", "OUTPUT", "!", "-d", "127.0.0.0/8", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "DOCKER"},
	{"-t", "nat", "-A", "DOCKER", "-i", "docker0", "-j", "RETURN"},
}

func TestBesideDocker(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	require.Tool(t, "iptables")
	loopbackUp(t)
	o := outside(t)
	for _, r := range dockerRules {
		out, err := exec.Command("iptables", r...).CombinedOutput()
		require.Host(t, "iptables", err == nil, fmt.Sprintf("this kernel lacks what Docker's rules need: iptables %v: %s", r, out))
	}
	h := open(t, "")
	finding := func() Finding {
		for _, f := range h.Check(t.Context()) {
			if f.Name == "other firewalls" {
				return f
			}
		}
		t.Fatal("no finding about forwarding")
		return Finding{}
	}
	a, b := join(t, h, Default, 1, tcp(8080, 80)), join(t, h, Default, 2)
	a.serve("tcp", ":80", "a")
	n, _ := h.Network(Default)
	wants(t, "tcp", "127.0.0.1:8080", "a from "+n.Gateway4.String())
	wants(t, "tcp", "192.0.2.2:8080", "a from 192.0.2.2")
	a.fails("tcp", "192.0.2.1:80")
	o.fails("tcp", "192.0.2.2:8080")
	f := finding()
	if f.OK || !strings.Contains(f.Fix, "DOCKER-USER") {
		t.Errorf("%+v", f)
	}
	for _, line := range strings.Split(f.Fix, "\n") {
		if strings.HasPrefix(line, "iptables ") {
			host(t, strings.Fields(line)...)
		}
	}
	a.wants("tcp", "192.0.2.1:80", "outside from 192.0.2.2")
	o.wants("tcp", "192.0.2.2:8080", "a from 192.0.2.1")
	b.wants("tcp", at(a.address, "4", 80), "a from "+b.address.IPv4.String())
	if f := finding(); !f.OK {
		t.Errorf("%+v", f)
	}
}

func TestHundredParallelConnects(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	const many = 100
	var guests []*guest
	for i := range many {
		guests = append(guests, startGuest(t, "0000000001"+string("0123456789"[i/10])+string("0123456789"[i%10])))
	}
	var wait sync.WaitGroup
	began := time.Now()
	for i, g := range guests {
		wait.Go(func() {
			var err error
			if g.address, err = h.Allocate(Default, g.id, g.id); err != nil {
				t.Error(err)
				return
			}
			if _, err := h.Connect(t.Context(), g.id, g.pid, g.address, []Port{tcp(uint16(10000+i), 80)}); err != nil {
				t.Error(err)
			}
			names, err := os.ReadFile(filepath.Join(h.o.RunDir, dns.NamesFile))
			if err != nil || !strings.Contains(string(names), g.id) {
				t.Error("connected before its name was written", err)
			}
		})
	}
	wait.Wait()
	t.Logf("%d connected in %v", many, time.Since(began))
	seen := map[string]bool{}
	for _, g := range guests {
		if seen[g.address.IPv4.String()] {
			t.Error("given twice:", g.address)
		}
		seen[g.address.IPv4.String()] = true
	}
	if err := h.Destroy(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t)
}

func TestForeignBridgeOfThatNameIsRefused(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	host(t, "ip", "link", "add", "strata0", "type", "veth", "peer", "name", "x")
	h := open(t, "")
	if err := h.Ensure(t.Context(), Default); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
}

func TestCheckFindsWhatThisHostHasAndChangesNothing(t *testing.T) {
	if !fresh.Namespace(t) {
		return
	}
	loopbackUp(t)
	h := open(t, "")
	for _, f := range h.Check(t.Context()) {
		t.Logf("%+v", f)
		if !f.OK && f.Name != "uplink" {
			t.Errorf("%s: %s", f.Name, f.Detail)
		}
		if f.How == "" || !f.OK && (f.Lost == "" || f.Fix == "") {
			t.Errorf("%s says too little", f.Name)
		}
	}
	nothingLeft(t)
}
