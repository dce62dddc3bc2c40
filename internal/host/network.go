package host

import (
	"context"
	"fmt"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/thread"
)

func networking() []probe {
	const where = " in a network namespace of its own"
	return []probe{
		row(true, "network namespaces", "unshared one on a thread", "networks, and isolation from the host's", "use a kernel built with CONFIG_NET_NS", inNetwork(func() error { return nil })),
		row(true, "veth", "made a pair"+where, "networks", "run `modprobe veth`", inNetwork(veth)),
		row(true, "bridge", "made one"+where, "networks", "run `modprobe bridge`", inNetwork(bridge)),
		row(true, "nftables", "made a table with a map and a NAT chain"+where, "published ports, the way out, isolated networks", "run `modprobe nf_tables nft_chain_nat nft_nat`", inNetwork(nft)),
		row(false, "tun", "made a tap device"+where, "networks of guests and machines", "run `modprobe tun`", inNetwork(tap)),
	}
}

// inNetwork tries something in a fresh network namespace, which ends with its
// thread.
func inNetwork(try func() error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		return "", thread.Spare(func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare the network: %w", err)
			}
			return try()
		})
	}
}

func veth() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "strata0"
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "strata1"})
}

func bridge() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "strata0"
	return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
}

func nft() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "strata"})
	conn.AddChain(&nftables.Chain{Name: "nat", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	ports := &nftables.Set{Table: table, Name: "ports", IsMap: true, KeyType: nftables.TypeInetService, DataType: nftables.TypeIPAddr}
	if err := conn.AddSet(ports, nil); err != nil {
		return err
	}
	return conn.Flush()
}

func tap() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("strata0")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
}
