package nft

import (
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The kernel's registers: four of 16 bytes, or from 8 on sixteen of 4 bytes that
// are the same memory. Source: linux/netfilter/nf_tables.h, enum nft_registers.
const (
	reg   = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00
)

func all(parts ...[]expr.Any) []expr.Any {
	var joined []expr.Any
	for _, p := range parts {
		joined = append(joined, p...)
	}
	return joined
}

var (
	accept     = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop       = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	masquerade = []expr.Any{&expr.Masq{}}
	ip4        = []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equal([]byte{unix.NFPROTO_IPV4})}
	ip6        = []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equal([]byte{unix.NFPROTO_IPV6})}

	// local: the packet is for one of the host's own addresses.
	local = []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)),
	}

	notFromLoopback = []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte(ifname("lo"))},
	}

	established = bits(&expr.Ct{Key: expr.CtKeySTATE, Register: reg}, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)

	// translated: the connection's destination was rewritten.
	// Source: linux/netfilter/nf_conntrack_common.h, IPS_DST_NAT.
	translated = bits(&expr.Ct{Key: expr.CtKeySTATUS, Register: reg}, 1<<5)

	sameBridge = []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_2},
		&expr.Lookup{SourceRegister: reg, SetName: Same},
	}

	// arpSource: link . sender's hardware address . sender's address, as the ARP packet itself says.
	arpSource = []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		load(expr.PayloadBaseNetworkHeader, 8, 6, reg32+4),
		load(expr.PayloadBaseNetworkHeader, 14, 4, reg32+6),
		&expr.Lookup{SourceRegister: reg, SetName: From4},
	}
)

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data} }

func bits(from expr.Any, mask uint32) []expr.Any {
	return []expr.Any{
		from,
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: make([]byte, 4)},
	}
}

func named(key expr.MetaKey, set string, not bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg}, &expr.Lookup{SourceRegister: reg, SetName: set, Invert: not}}
}

func iif(set string) []expr.Any    { return named(expr.MetaKeyIIFNAME, set, false) }
func iifNot(set string) []expr.Any { return named(expr.MetaKeyIIFNAME, set, true) }
func oif(set string) []expr.Any    { return named(expr.MetaKeyOIFNAME, set, false) }
func oifNot(set string) []expr.Any { return named(expr.MetaKeyOIFNAME, set, true) }

// Which address of a packet. Offsets and lengths: RFC 791 3.1, RFC 8200 3.
const (
	fromAddress = 12
	toAddress   = 16
)

func load(base expr.PayloadBase, offset, length, into uint32) expr.Any {
	return &expr.Payload{OperationType: expr.PayloadLoad, Base: base, Offset: offset, Len: length, DestRegister: into}
}

func loopback4(which uint32) []expr.Any {
	return all(ip4, []expr.Any{load(expr.PayloadBaseNetworkHeader, which, 1, reg), equal([]byte{127})})
}

func loopback6(which uint32) []expr.Any {
	offset := uint32(8)
	if which == toAddress {
		offset = 24
	}
	one := make([]byte, 16)
	one[15] = 1
	return all(ip6, []expr.Any{load(expr.PayloadBaseNetworkHeader, offset, 16, reg), equal(one)})
}

func from4(set string) []expr.Any {
	return all(ip4, []expr.Any{load(expr.PayloadBaseNetworkHeader, 12, 4, reg), &expr.Lookup{SourceRegister: reg, SetName: set}})
}

func from6(set string) []expr.Any {
	return all(ip6, []expr.Any{load(expr.PayloadBaseNetworkHeader, 8, 16, reg), &expr.Lookup{SourceRegister: reg, SetName: set}})
}

func proto(number byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equal([]byte{number})}
}

func icmpv6(kind byte) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseTransportHeader, 0, 1, reg), equal([]byte{kind})}
}

func etherType(kind uint16) []expr.Any {
	return []expr.Any{load(expr.PayloadBaseLLHeader, 12, 2, reg), equal(binaryutil.BigEndian.PutUint16(kind))}
}

// addressProtoPortLoad puts destination address . protocol . destination port into the registers.
func addressProtoPortLoad(version int) []expr.Any {
	if version == 4 {
		return []expr.Any{
			load(expr.PayloadBaseNetworkHeader, 16, 4, reg),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg32 + 1},
			load(expr.PayloadBaseTransportHeader, 2, 2, reg32+2),
		}
	}
	return []expr.Any{
		load(expr.PayloadBaseNetworkHeader, 24, 16, reg),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg32 + 4},
		load(expr.PayloadBaseTransportHeader, 2, 2, reg32+5),
	}
}

func addressProtoPort(version int, set string) []expr.Any {
	return append(addressProtoPortLoad(version), &expr.Lookup{SourceRegister: reg, SetName: set})
}

func addressProtoPortMap(version int, set string) []expr.Any {
	return append(addressProtoPortLoad(version), &expr.Lookup{SourceRegister: reg, SetName: set, DestRegister: reg, IsDestRegSet: true})
}

func protoPortMap(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		load(expr.PayloadBaseTransportHeader, 2, 2, reg32+1),
		&expr.Lookup{SourceRegister: reg, SetName: set, DestRegister: reg, IsDestRegSet: true},
	}
}

// dnat takes the new destination, address . port, out of the registers.
func dnat(version int) []expr.Any {
	family, port := uint32(unix.NFPROTO_IPV4), uint32(reg32+1)
	if version == 6 {
		family, port = unix.NFPROTO_IPV6, reg32+4
	}
	return []expr.Any{&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg, RegProtoMin: port, Specified: true}}
}

// field is a part of the packet.
type field struct {
	base           expr.PayloadBase
	offset, length uint32
}

func network(offset, length uint32) field {
	return field{expr.PayloadBaseNetworkHeader, offset, length}
}

func transport(offset, length uint32) field {
	return field{expr.PayloadBaseTransportHeader, offset, length}
}

func linkSourceLookup(f field, set string, not bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg},
		load(expr.PayloadBaseLLHeader, 6, 6, reg32+4),
		load(f.base, f.offset, f.length, reg32+6),
		&expr.Lookup{SourceRegister: reg, SetName: set, Invert: not},
	}
}

// linkSource matches where link . sender's hardware address . field are in set.
func linkSource(f field, set string) []expr.Any    { return linkSourceLookup(f, set, false) }
func notLinkSource(f field, set string) []expr.Any { return linkSourceLookup(f, set, true) }
