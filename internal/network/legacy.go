package network

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The older iptables interface. Source: linux/netfilter_ipv4/ip_tables.h.
const (
	iptBase       = 64 // IPT_BASE_CTL
	iptGetInfo    = iptBase
	iptGetEntries = iptBase + 1
	iptTableName  = 32                         // XT_TABLE_MAXNAMELEN
	iptInfoSize   = iptTableName + 4*(1+5*2+2) // struct ipt_getinfo
	hookForward   = 2                          // NF_INET_FORWARD
	iptEntryHead  = 112                        // struct ipt_entry up to elems
	iptTargetHead = 32                         // struct xt_entry_target
	legacyDrop    = -1                         // -NF_DROP - 1, as a standard target's verdict
	maxLegacy     = 64 << 20                   // bytes of rules that are looked at
)

// legacyPolicy returns the verdict of the filter table's FORWARD policy.
func legacyPolicy() (int32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	info := make([]byte, iptInfoSize)
	copy(info, "filter")
	if err := getsockopt(fd, iptGetInfo, info); err != nil {
		return 0, err
	}
	word := func(b []byte, at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	// name, valid_hooks, hook_entry[5], underflow[5], num_entries, size
	underflow := word(info, iptTableName+4+5*4+hookForward*4)
	size := word(info, iptTableName+4+10*4+4)
	if size > maxLegacy {
		return 0, errShort
	}
	const head = iptTableName + 8 // name, size, padding to 8
	entries := make([]byte, head+int(size))
	copy(entries, "filter")
	binary.NativeEndian.PutUint32(entries[iptTableName:], size)
	if err := getsockopt(fd, iptGetEntries, entries); err != nil {
		return 0, err
	}
	at := head + int(underflow) + iptEntryHead + iptTargetHead
	if at+4 > len(entries) {
		return 0, errShort
	}
	return int32(word(entries, at)), nil
}

func getsockopt(fd, option int, b []byte) error {
	size := uint32(len(b))
	_, _, code := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(option), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if code != 0 {
		return code
	}
	return nil
}

func readFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	return string(data), err
}
