package dns

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// ResolvedConf lists the servers that systemd-resolved asks itself; its own
// address in /etc/resolv.conf is of no use where its socket is not: in another
// network namespace, or when it is stopped. Source: systemd-resolved.service(8).
const ResolvedConf = "/run/systemd/resolve/resolv.conf"

// serverTimeout is the wait for one server: three of them fit into the 5 s that
// the C library waits for us (resolv.conf(5), timeout).
const serverTimeout = 1500 * time.Millisecond

// maxServers bounds how many are asked.
const maxServers = 6

type forwarder struct {
	path      string
	preferred atomic.Pointer[netip.AddrPort] // the one that answered last

	mu      sync.Mutex
	seen    fileState
	servers []netip.AddrPort
}

func newForwarder(path string) *forwarder { return &forwarder{path: path} }

// list returns whom to ask, as the host's resolv.conf says now.
func (f *forwarder) list() []netip.AddrPort {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := look(f.path)
	if err != nil || f.seen.same(now) {
		return f.servers
	}
	now.read = time.Now()
	f.servers = readServers(f.path)
	if slices.ContainsFunc(f.servers, func(a netip.AddrPort) bool { return a.Addr().IsLoopback() }) {
		f.servers = append(f.servers, readServers(ResolvedConf)...)
	}
	f.servers = f.servers[:min(len(f.servers), maxServers)]
	f.seen = now
	return f.servers
}

func readServers(path string) []netip.AddrPort {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return nil
	}
	return ParseResolvConf(data)
}

// ParseResolvConf returns the servers of a resolv.conf(5), in order; lines that
// make no sense are passed over, as the C library does.
func ParseResolvConf(data []byte) []netip.AddrPort {
	var found []netip.AddrPort
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(fields[1])
		if err != nil {
			continue
		}
		if p := netip.AddrPortFrom(a.Unmap(), 53); !slices.Contains(found, p) {
			found = append(found, p)
		}
	}
	return found
}

var errNoServer = errors.New("the host names no DNS server")

// exchange asks one server after the other, the one that answered last first.
func (f *forwarder) exchange(ctx context.Context, q *dns.Msg, protocol string, own map[netip.Addr]bool) (*dns.Msg, error) {
	servers := slices.DeleteFunc(slices.Clone(f.list()), func(a netip.AddrPort) bool { return own[a.Addr()] })
	if p := f.preferred.Load(); p != nil {
		if i := slices.Index(servers, *p); i > 0 {
			servers[0], servers[i] = servers[i], servers[0]
		}
	}
	err := errNoServer
	for _, server := range servers {
		var reply *dns.Msg
		if reply, err = f.one(ctx, q, protocol, server); err == nil {
			f.preferred.Store(&server)
			return reply, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func (f *forwarder) one(ctx context.Context, q *dns.Msg, protocol string, server netip.AddrPort) (*dns.Msg, error) {
	ask := q.Copy()
	ask.Id = dns.Id() // not the asker's choice
	client := dns.Client{Net: protocol, Timeout: serverTimeout, UDPSize: maxMessage}
	reply, _, err := client.ExchangeContext(ctx, ask, server.String())
	if err != nil {
		return nil, err
	}
	if !reply.Response || len(reply.Question) != 1 || !strings.EqualFold(reply.Question[0].Name, ask.Question[0].Name) || reply.Question[0].Qtype != ask.Question[0].Qtype {
		return nil, fmt.Errorf("%s answers another question", server)
	}
	reply.Id = q.Id
	reply.Question = q.Question
	reply.Compress = true
	return reply, nil
}
