// Package network joins environments to networks: bridges, addresses for life,
// names, published ports, and what keeps them apart.
//
// It knows no environment's record. Whoever has them tells it, at start, which
// addresses are given out (Reserve) and what runs (Sync), and asks for links
// (Connect). It works in the network namespace of the calling process.
//
// # Words
//
// A Host is the host side of one strata root. A Network is one Linux bridge with
// a subnet of each IP version. A link is a pair of virtual Ethernet devices, one
// end a port of the bridge, the other the environment's eth0; or a tap device, a
// port of the bridge whose descriptor is the cable of a virtual card. The gateway is the
// bridge's own address; names are answered there.
//
// # What is on the host
//
//	bridge strata0, strata-<tag>      the default network
//	bridge st<tag>-<n>                further ones
//	link   sv<id><x>                  one per running environment; x tells its runs apart
//	table  inet strata[-<tag>], bridge strata[-<tag>]
//	sysctl net.ipv4.ip_forward, net.ipv6.conf.all.forwarding (where there is a way out),
//	       net.ipv4.conf.<bridge>.route_localnet
//	a process that answers names, which outlives the daemon (package dns)
//
// A system that nobody else tells its address is told by DHCP (Lease, package dhcp), over
// its own tap, by this process and for as long as that lives.
//
// What the kernel remembers of datagrams to a published port is forgotten when the port comes or
// goes. Nothing else is touched, and none of it before the first Ensure or Connect.
//
// # Lifetimes
//
// A link lives as long as the namespace that its inner end is in, a tap as long
// as its descriptors: the kernel removes it. The bridge, the tables and the answering process stay when the
// daemon ends, so running environments lose nothing; Watch puts back what others take
// away of what is in use. The records of networks
// are files; which address belongs to whom is only in the environments' records.
//
// # Invariants
//
//   - An environment's link is watched before it exists (nft.PortElement) and
//     until it is gone, so that there is no moment at which it could send as
//     somebody else.
//   - What was connected or renamed can be reached by its name when that returns.
//   - Deleting a link blocks for tens of milliseconds, under a lock that the whole host
//     shares; it is never done in Connect or Disconnect, but later, and
//     only if the kernel has not done it by then.
//
// # Lock order
//
// Host.syncing, then Host.ensuring, then nft.Table's or zoneFile's, then Host.mu, then
// rtnl's and zoneFile's counters. Host.mu is never held while the filter is changed.
package network
