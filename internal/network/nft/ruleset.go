package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// The sets and maps. The tables they are in: see sets.
const (
	Bridges  = "bridges"  // names of strata's bridges
	Isolated = "isolated" // those of them with no way out and none in
	Same     = "same"     // pairs of the same bridge, for what stays on it
	Subnets4 = "subnets4" // what the networks cover
	Subnets6 = "subnets6"
	Own4     = "own4" // services of strata's own on the gateways: address . protocol . port
	Own6     = "own6"
	At4      = "at4" // published on one address: address . protocol . port → address . port
	At6      = "at6"
	Any4     = "any4" // published on every address: protocol . port → address . port
	Any6     = "any6"
	Ports    = "ports" // links of environments
	From4    = "from4" // who may send: link . hardware address . address
	From6    = "from6"
)

// Ruleset is the fixed part of one root's filter.
type Ruleset struct {
	Table string // name of both tables
}

type setPlan struct {
	name     string
	bridge   bool // in the bridge table, else in the inet one
	key      []nftables.SetDatatype
	value    []nftables.SetDatatype // of a map
	interval bool
}

var (
	tIf    = nftables.TypeIFName
	tIP4   = nftables.TypeIPAddr
	tIP6   = nftables.TypeIP6Addr
	tMAC   = nftables.TypeEtherAddr
	tProto = nftables.TypeInetProto
	tPort  = nftables.TypeInetService
)

type types = []nftables.SetDatatype

var sets = []setPlan{
	{name: Bridges, key: types{tIf}},
	{name: Isolated, key: types{tIf}},
	{name: Same, key: types{tIf, tIf}},
	{name: Subnets4, key: types{tIP4}, interval: true},
	{name: Subnets6, key: types{tIP6}, interval: true},
	{name: Own4, key: types{tIP4, tProto, tPort}},
	{name: Own6, key: types{tIP6, tProto, tPort}},
	{name: At4, key: types{tIP4, tProto, tPort}, value: types{tIP4, tPort}},
	{name: At6, key: types{tIP6, tProto, tPort}, value: types{tIP6, tPort}},
	{name: Any4, key: types{tProto, tPort}, value: types{tIP4, tPort}},
	{name: Any6, key: types{tProto, tPort}, value: types{tIP6, tPort}},
	{name: Ports, bridge: true, key: types{tIf}},
	{name: From4, bridge: true, key: types{tIf, tMAC, tIP4}},
	{name: From6, bridge: true, key: types{tIf, tMAC, tIP6}},
}

type chainPlan struct {
	name     string
	bridge   bool
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	head     string // as nft prints it
	rules    []rule
}

// rule is one rule: the words that nft prints for it, and what the kernel is given.
type rule struct {
	text  string
	exprs []expr.Any
}

// chains are all chains. The order of rules within one is what matters.
func chains() []chainPlan {
	return []chainPlan{
		{
			name: "guard", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityRaw,
			head: "type filter hook prerouting priority raw; policy accept;",
			rules: []rule{
				// route_localnet is on for the bridges, so that the host's own 127.0.0.1:port can be
				// published; nobody else may send to or from 127/8 (CVE-2020-8558).
				{"iifname @bridges ip daddr 127.0.0.0/8 drop", all(iif(Bridges), loopback4(toAddress), drop)},
				{"iifname @bridges ip saddr 127.0.0.0/8 drop", all(iif(Bridges), loopback4(fromAddress), drop)},
			},
		},
		{
			name: "prerouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityNATDest,
			head: "type nat hook prerouting priority dstnat; policy accept;", rules: append([]rule{keepLoopback}, published()...),
		},
		{
			name: "output", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookOutput, priority: *nftables.ChainPriorityNATDest,
			head: "type nat hook output priority -100; policy accept;", rules: published(),
		},
		{
			name: "input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput, priority: *nftables.ChainPriorityFilter,
			head: "type filter hook input priority filter; policy accept;",
			rules: []rule{
				{"iifname != @isolated accept", all(iifNot(Isolated), accept)},
				{"ct state established,related accept", all(established, accept)},
				{"ip daddr . meta l4proto . th dport @own4 accept", all(ip4, addressProtoPort(4, Own4), accept)},
				{"ip6 daddr . meta l4proto . th dport @own6 accept", all(ip6, addressProtoPort(6, Own6), accept)},
				{"meta l4proto icmp accept", all(proto(1), accept)},
				{"meta l4proto ipv6-icmp accept", all(proto(58), accept)},
				{"drop", drop},
			},
		},
		{
			name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, priority: *nftables.ChainPriorityFilter,
			head: "type filter hook forward priority filter; policy accept;",
			rules: []rule{
				{"iifname != @bridges oifname != @bridges accept", all(iifNot(Bridges), oifNot(Bridges), accept)},
				{"ct state established,related accept", all(established, accept)},
				{"iifname . oifname @same accept", all(sameBridge, accept)},
				{"iifname @isolated drop", all(iif(Isolated), drop)},
				{"oifname @isolated drop", all(oif(Isolated), drop)},
				{"oifname @bridges ct status dnat accept", all(oif(Bridges), translated, accept)},
				{"oifname @bridges drop", all(oif(Bridges), drop)},
			},
		},
		{
			name: "postrouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, priority: *nftables.ChainPriorityNATSource,
			head: "type nat hook postrouting priority srcnat; policy accept;",
			rules: []rule{
				{"oifname @bridges ip saddr 127.0.0.0/8 masquerade", all(oif(Bridges), loopback4(fromAddress), masquerade)},
				// Who reaches an environment through the host's address must get the answer from there.
				{"oifname @bridges ip saddr @subnets4 ct status dnat masquerade", all(oif(Bridges), from4(Subnets4), translated, masquerade)},
				{"oifname @bridges ip6 saddr @subnets6 ct status dnat masquerade", all(oif(Bridges), from6(Subnets6), translated, masquerade)},
				{"oifname != @bridges ip saddr @subnets4 masquerade", all(oifNot(Bridges), from4(Subnets4), masquerade)},
				{"oifname != @bridges ip6 saddr @subnets6 masquerade", all(oifNot(Bridges), from6(Subnets6), masquerade)},
			},
		},
		{
			name: "sources", bridge: true, kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityRaw,
			head: "type filter hook prerouting priority dstnat; policy accept;", rules: sources(),
		},
	}
}

// keepLoopback leaves what somebody else on a link sends to 127/8 as it is, so that the
// kernel drops it (ip-sysctl, route_localnet): translated, it would be let in to what is
// published on 127.0.0.1. The host's own packets are translated at output.
var keepLoopback = rule{`iifname != "lo" ip daddr 127.0.0.0/8 accept`, all(notFromLoopback, loopback4(toAddress), accept)}

// published are the rules of both chains that find published ports.
func published() []rule {
	return []rule{
		{"ip daddr . meta l4proto . th dport @own4 accept", all(ip4, addressProtoPort(4, Own4), accept)},
		{"ip6 daddr . meta l4proto . th dport @own6 accept", all(ip6, addressProtoPort(6, Own6), accept)},
		// IPv6 has no route_localnet: answers to ::1 are lost on the way in. Better refused at once, so
		// that whoever asks for localhost goes on with 127.0.0.1.
		{"ip6 daddr ::1 accept", all(loopback6(toAddress), accept)},
		{"dnat ip to ip daddr . meta l4proto . th dport map @at4", all(ip4, addressProtoPortMap(4, At4), dnat(4))},
		{"dnat ip6 to ip6 daddr . meta l4proto . th dport map @at6", all(ip6, addressProtoPortMap(6, At6), dnat(6))},
		{"meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @any4", all(ip4, local, protoPortMap(Any4), dnat(4))},
		{"meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @any6", all(ip6, local, protoPortMap(Any6), dnat(6))},
	}
}

// sources are the rules that let an environment send only as itself.
func sources() []rule {
	return []rule{
		{"iifname != @ports accept", all(iifNot(Ports), accept)},
		{"iifname . ether saddr . ip saddr @from4 accept", all(etherType(0x0800), linkSource(network(12, 4), From4), accept)},
		{"iifname . ether saddr . arp saddr ip @from4 iifname . arp saddr ether . arp saddr ip @from4 accept",
			all(etherType(0x0806), linkSource(network(14, 4), From4), arpSource, accept)},
		// Router advertisements and redirects are for routers.
		{"icmpv6 type nd-router-advert drop", all(etherType(0x86dd), proto(58), icmpv6(134), drop)},
		{"icmpv6 type nd-redirect drop", all(etherType(0x86dd), proto(58), icmpv6(137), drop)},
		// Nobody may say that somebody else's address is his.
		{"icmpv6 type nd-neighbor-advert iifname . ether saddr . @th,64,128 != @from6 drop",
			all(etherType(0x86dd), proto(58), icmpv6(136), notLinkSource(transport(8, 16), From6), drop)},
		{"iifname . ether saddr . ip6 saddr @from6 accept", all(etherType(0x86dd), linkSource(network(8, 16), From6), accept)},
		{"drop", drop},
	}
}

// Mark is the name of the empty set that tells this ruleset from others.
func (r Ruleset) Mark() string {
	sum := sha256.Sum256([]byte(r.text("v")))
	return "v" + hex.EncodeToString(sum[:4])
}

// String prints the ruleset in nft's own words.
func (r Ruleset) String() string { return r.text(r.Mark()) }

func (r Ruleset) text(mark string) string {
	var b strings.Builder
	for _, bridge := range []bool{false, true} {
		family := "inet"
		if bridge {
			family = "bridge"
		}
		fmt.Fprintf(&b, "table %s %s {\n", family, r.Table)
		b.WriteString(setPlan{name: mark, key: types{tPort}}.String())
		for _, s := range sets {
			if s.bridge == bridge {
				b.WriteString(s.String())
			}
		}
		for _, c := range chains() {
			if c.bridge != bridge {
				continue
			}
			fmt.Fprintf(&b, "\tchain %s {\n\t\t%s\n", c.name, c.head)
			for _, rule := range c.rules {
				fmt.Fprintf(&b, "\t\t%s\n", rule.text)
			}
			b.WriteString("\t}\n")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func (s setPlan) String() string {
	word, flags := "set", ""
	kind := join(s.key)
	if s.value != nil {
		word, kind = "map", kind+" : "+join(s.value)
	}
	if s.interval {
		flags = "\t\tflags interval\n"
	}
	return fmt.Sprintf("\t%s %s {\n\t\ttype %s\n%s\t}\n", word, s.name, kind, flags)
}

func join(t types) string {
	words := make([]string, len(t))
	for i := range t {
		words[i] = t[i].Name
	}
	return strings.Join(words, " . ")
}
