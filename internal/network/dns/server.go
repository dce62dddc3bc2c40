package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// server listens on the gateways of all networks that are up.
type server struct {
	c        Config
	log      *slog.Logger
	identity string
	limits   *limits
	ask      *forwarder

	mu      sync.Mutex // of what follows
	zone    *index
	seen    fileState
	running map[netip.Addr][]*dns.Server
}

func newServer(c Config) *server {
	s := &server{c: c, log: c.Log, limits: newLimits(), zone: newIndex(Zone{}), running: map[netip.Addr][]*dns.Server{}}
	s.ask = newForwarder(c.ResolvConf)
	s.identity, _ = Identity("/proc/self/exe") // where it cannot be had, the daemon will start another
	return s
}

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.running {
		s.stop(a)
	}
}

// stop ends the listeners at a, with s.mu held.
func (s *server) stop(a netip.Addr) {
	for _, one := range s.running[a] {
		if one.Listener != nil {
			one.Listener.Close()
		}
		if one.PacketConn != nil {
			one.PacketConn.Close()
		}
	}
	delete(s.running, a)
}

// sync reads the names and listens on every network that is up, and on no other.
func (s *server) sync() error {
	if _, err := s.current(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[netip.Addr]string{}
	for _, n := range s.zone.Networks {
		if !n.Up {
			continue
		}
		wanted[n.Gateway4] = n.Name
		if n.Gateway6.IsValid() {
			wanted[n.Gateway6] = n.Name
		}
	}
	for a := range s.running {
		if _, ok := wanted[a]; !ok {
			s.stop(a)
		}
	}
	var failed []error
	for a, name := range wanted {
		if s.running[a] != nil {
			continue
		}
		started, err := s.listen(a, name)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.running[a] = started
	}
	return errors.Join(failed...)
}

// The bounds of what one asker can make the process hold.
const (
	maxMessage    = 4096            // bytes of one question by UDP; by TCP the format's own 64 KiB
	maxTCP        = 128             // connections at a time, of all askers of one gateway address
	maxTCPQueries = 64              // questions by one connection
	tcpTimeout    = 5 * time.Second // for a question to come in whole, and between two
	sendTimeout   = 5 * time.Second // for an answer to go out
	port          = "53"            // RFC 1035 4.2
	ipv6Freebind  = 78              // linux/in6.h, IPV6_FREEBIND
	totalTimeout  = 6 * time.Second // for one question to be answered
)

func (s *server) listen(a netip.Addr, network string) ([]*dns.Server, error) {
	// The address may belong to a bridge that has just been made.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		controlled := raw.Control(func(fd uintptr) {
			if a.Is4() {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, ipv6Freebind, 1)
			}
		})
		return errors.Join(controlled, err)
	}}
	at := net.JoinHostPort(a.String(), port)
	packets, err := config.ListenPacket(context.Background(), "udp", at)
	if err != nil {
		return nil, fmt.Errorf("answer names of network %s: %w", network, err)
	}
	streams, err := config.Listen(context.Background(), "tcp", at)
	if err != nil {
		packets.Close()
		return nil, fmt.Errorf("answer names of network %s: %w", network, err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { s.serve(w, q, network) })
	shape := func() *dns.Server {
		return &dns.Server{
			Handler: handler, UDPSize: maxMessage, MsgAcceptFunc: acceptable, MaxTCPQueries: maxTCPQueries,
			ReadTimeout: tcpTimeout, WriteTimeout: sendTimeout, IdleTimeout: func() time.Duration { return tcpTimeout },
		}
	}
	byPacket, byStream := shape(), shape()
	byPacket.PacketConn, byStream.Listener = packets, limitListener(streams, maxTCP)
	for _, one := range []*dns.Server{byPacket, byStream} {
		go func() {
			if err := one.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				s.log.Debug("stopped answering names", "network", network, "err", err)
			}
		}()
	}
	return []*dns.Server{byPacket, byStream}, nil
}

// acceptable looks at a message's header: questions only, one in each.
func acceptable(h dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15 // RFC 1035 4.1.1
	switch opcode := int(h.Bits>>11) & 0xf; {
	case h.Bits&response != 0:
		return dns.MsgIgnore
	case opcode != dns.OpcodeQuery:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount > 0 || h.Nscount > 0 || h.Arcount > 2:
		return dns.MsgReject
	}
	return dns.MsgAccept
}

// fileState tells one version of a file from another.
type fileState struct {
	inode uint64
	size  int64
	mtime time.Time
	read  time.Time
}

// settled is how long after a change a file is read again whatever it looks
// like, since clocks of file systems tick slowly and inodes are used again.
const settled = 50 * time.Millisecond

func look(path string) (fileState, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileState{}, err
	}
	return fileState{inode: st.Ino, size: st.Size, mtime: time.Unix(st.Mtim.Unix())}, nil
}

// same tells whether now shows the version that was seen.
func (seen fileState) same(now fileState) bool {
	return seen.inode == now.inode && seen.size == now.size && seen.mtime.Equal(now.mtime) && seen.read.Sub(now.mtime) > settled
}

// current returns the names as the file has them now. A file that is damaged or
// gone changes nothing.
func (s *server) current() (*index, error) {
	path := filepath.Join(s.c.Dir, NamesFile)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := look(path)
	if err != nil {
		return s.zone, fmt.Errorf("look at names: %w", err)
	}
	if s.seen.same(now) {
		return s.zone, nil
	}
	now.read = time.Now()
	if now.size > maxZone {
		return s.zone, fmt.Errorf("read names: more than %d bytes", maxZone)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return s.zone, fmt.Errorf("read names: %w", err)
	}
	z, err := ParseZone(data)
	if err != nil {
		return s.zone, err
	}
	s.zone, s.seen = newIndex(z), now
	return s.zone, nil
}

// limitListener lets at most n connections be open at a time.
func limitListener(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, free: make(chan struct{}, n)}
}

type limited struct {
	net.Listener
	free chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &limitedConn{Conn: c, give: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			c.Close() // too many: later ones must not wait behind those
		}
	}
}

type limitedConn struct {
	net.Conn
	give func()
}

func (c *limitedConn) Close() error {
	c.give()
	return c.Conn.Close()
}
