package dns

import (
	"context"
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// ttl is how long an answer may be kept: names come and go with environments.
// Unit: seconds.
const ttl = 5

// index is a zone, made quick to look into.
type index struct {
	Zone
	networks map[string]Network
	names    map[hostKey]Host
	reverse  map[netip.Addr]Host
}

type hostKey struct{ network, name string }

func newIndex(z Zone) *index {
	x := &index{Zone: z, networks: map[string]Network{}, names: map[hostKey]Host{}, reverse: map[netip.Addr]Host{}}
	for _, n := range z.Networks {
		x.networks[n.Name] = n
	}
	for _, h := range z.Hosts {
		x.names[hostKey{h.Network, h.Name}] = h
		x.reverse[h.IPv4] = h
		if h.IPv6.IsValid() {
			x.reverse[h.IPv6] = h
		}
	}
	return x
}

// serve answers one question that came to the gateway of a network.
func (s *server) serve(w dns.ResponseWriter, q *dns.Msg, network string) {
	from, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil {
		return
	}
	asker := from.Addr().Unmap().WithZone("")
	if !s.limits.allow(asker) {
		return // no answer: a flood gets none
	}
	x, err := s.current()
	if err != nil {
		s.log.Debug("names are as they were", "err", err)
	}
	reply, further := x.answer(q, network, asker)
	if further {
		reply = s.forward(q, asker, x, w.RemoteAddr().Network())
	}
	if w.RemoteAddr().Network() == "udp" {
		reply.Truncate(udpSize(q))
	}
	_ = w.WriteMsg(reply) // the asker is gone, or asks again
}

// udpSize is how much the asker takes. Source: RFC 6891 6.2.3.
func udpSize(q *dns.Msg) int {
	if o := q.IsEdns0(); o != nil {
		return min(max(int(o.UDPSize()), dns.MinMsgSize), maxMessage)
	}
	return dns.MinMsgSize
}

// answer answers what the zone knows; further is true for what others must be asked.
func (x *index) answer(q *dns.Msg, network string, asker netip.Addr) (reply *dns.Msg, further bool) {
	reply = new(dns.Msg)
	reply.SetReply(q)
	reply.RecursionAvailable = true
	n, ok := x.networks[network]
	if !ok || len(q.Question) != 1 || !n.IPv4.Contains(asker) && !(n.IPv6.IsValid() && n.IPv6.Contains(asker)) {
		reply.Rcode = dns.RcodeRefused // names are each network's own
		return reply, false
	}
	ask := q.Question[0]
	if ask.Qclass != dns.ClassINET || ask.Qtype == dns.TypeAXFR || ask.Qtype == dns.TypeIXFR {
		reply.Rcode = dns.RcodeRefused
		return reply, false
	}
	if o := q.IsEdns0(); o != nil {
		if o.Version() != 0 {
			reply.SetEdns0(maxMessage, false)
			reply.Rcode = dns.RcodeBadVers
			return reply, false
		}
		reply.SetEdns0(maxMessage, false)
	}
	name := strings.ToLower(strings.TrimSuffix(ask.Name, "."))
	if a, ok := reverseName(name); ok {
		return x.answerReverse(reply, n, ask, a)
	}
	bare, below := strings.CutSuffix(name, "."+Domain)
	h, known := x.names[hostKey{network, bare}]
	switch {
	case known && !strings.Contains(bare, "."):
		addresses(reply, ask, h.IPv4, h.IPv6)
	case name == "localhost":
		addresses(reply, ask, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()) // RFC 6761 6.3
	case name == Domain:
		reply.Authoritative = true
		negative(reply)
	case below, n.Isolated:
		reply.Authoritative = true
		reply.Rcode = dns.RcodeNameError
		negative(reply)
	default:
		return reply, true
	}
	return reply, false
}

func addresses(reply *dns.Msg, ask dns.Question, v4, v6 netip.Addr) {
	reply.Authoritative = true
	head := dns.RR_Header{Name: ask.Name, Class: dns.ClassINET, Ttl: ttl}
	if ask.Qtype == dns.TypeA || ask.Qtype == dns.TypeANY {
		head.Rrtype = dns.TypeA
		reply.Answer = append(reply.Answer, &dns.A{Hdr: head, A: v4.AsSlice()})
	}
	if (ask.Qtype == dns.TypeAAAA || ask.Qtype == dns.TypeANY) && v6.IsValid() {
		head.Rrtype = dns.TypeAAAA
		reply.Answer = append(reply.Answer, &dns.AAAA{Hdr: head, AAAA: v6.AsSlice()})
	}
	if len(reply.Answer) == 0 {
		negative(reply)
	}
}

// negative says how long the absence may be kept. Source: RFC 2308 3.
func negative(reply *dns.Msg) {
	reply.Ns = append(reply.Ns, &dns.SOA{
		Hdr: dns.RR_Header{Name: Domain + ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "gateway." + Domain + ".", Mbox: "root." + Domain + ".", Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl, Minttl: ttl,
	})
}

func (x *index) answerReverse(reply *dns.Msg, n Network, ask dns.Question, a netip.Addr) (*dns.Msg, bool) {
	h, known := x.reverse[a]
	ours := known
	for _, other := range x.Networks {
		ours = ours || other.IPv4.Contains(a) || other.IPv6.IsValid() && other.IPv6.Contains(a)
	}
	switch {
	case known && h.Network == n.Name:
		reply.Authoritative = true
		if ask.Qtype != dns.TypePTR && ask.Qtype != dns.TypeANY {
			negative(reply)
			return reply, false
		}
		reply.Answer = append(reply.Answer, &dns.PTR{
			Hdr: dns.RR_Header{Name: ask.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: h.Name + "." + Domain + ".",
		})
	case ours, n.Isolated:
		reply.Authoritative = true
		reply.Rcode = dns.RcodeNameError
		negative(reply)
	default:
		return reply, true
	}
	return reply, false
}

// reverseName reads the address out of a whole name below in-addr.arpa or
// ip6.arpa. Source: RFC 1035 3.5, RFC 3596 2.5.
func reverseName(name string) (netip.Addr, bool) {
	if digits, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(digits, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		var b [4]byte
		for i, p := range parts {
			v, err := strconv.ParseUint(p, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(v)
		}
		return netip.AddrFrom4(b), true
	}
	digits, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(digits) != 63 {
		return netip.Addr{}, false
	}
	var text [32]byte
	for i := range 32 {
		if i < 31 && digits[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		text[31-i] = digits[2*i]
	}
	var b [16]byte
	if _, err := hex.Decode(b[:], text[:]); err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16(b), true
}

// forward asks the host's servers, within the bounds of what one asker and all of them may.
func (s *server) forward(q *dns.Msg, asker netip.Addr, x *index, protocol string) *dns.Msg {
	failed := func() *dns.Msg {
		reply := new(dns.Msg)
		reply.SetRcode(q, dns.RcodeServerFailure)
		reply.RecursionAvailable = true
		return reply
	}
	if !s.limits.begin(asker) {
		return failed()
	}
	defer s.limits.end(asker)
	ctx, cancel := context.WithTimeout(context.Background(), totalTimeout)
	defer cancel()
	reply, err := s.ask.exchange(ctx, q, protocol, x.own())
	if err != nil {
		s.log.Debug("nobody outside answers", "err", err)
		return failed()
	}
	return reply
}

// own are the addresses that questions would come back from.
func (x *index) own() map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	for _, n := range x.Networks {
		own[n.Gateway4], own[n.Gateway6] = true, true
	}
	return own
}
