package network

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tcpListen is TCP_LISTEN of linux/net/tcp_states.h, as /proc/net/tcp prints it.
const tcpListen = "0A"

// socketLine is what is of use in a line of /proc/net/{tcp,udp}{,6}.
type socketLine struct {
	address netip.Addr
	port    uint16
	state   string
	inode   string
}

// parseSocket reads a line of /proc/net/tcp and its like; ok is false where it is none.
func parseSocket(line string) (s socketLine, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return s, false
	}
	host, port, found := strings.Cut(fields[1], ":")
	raw, err := hex.DecodeString(host)
	number, errPort := strconv.ParseUint(port, 16, 16)
	if !found || err != nil || errPort != nil || len(raw) != 4 && len(raw) != 16 {
		return s, false
	}
	for i := 0; i < len(raw); i += 4 { // printed as words of the machine
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	s.address, _ = netip.AddrFromSlice(raw)
	s.address = s.address.Unmap()
	s.port, s.state, s.inode = uint16(number), fields[3], fields[9]
	return s, true
}

// listener says who listens where p would be published at address a. ours is
// true where only the gateways' own name service does, which published ports do
// not disturb.
func (h *Host) listener(a netip.Addr, p Port) (holder string, ours bool) {
	var found []socketLine
	for _, file := range []string{p.Protocol, p.Protocol + "6"} {
		found = append(found, readSockets("/proc/thread-self/net/"+file, func(s socketLine) bool {
			if s.port != p.HostPort || p.Protocol == "tcp" && s.state != tcpListen {
				return false
			}
			return addressesMeet(a, s.address) || s.address == netip.IPv6Unspecified()
		})...)
	}
	gateways := map[netip.Addr]bool{}
	for _, n := range h.Networks() {
		gateways[n.Gateway4], gateways[n.Gateway6] = true, true
	}
	ours = len(found) > 0
	for _, s := range found {
		if !gateways[s.address] || s.port != 53 {
			ours = false
			if name := holderOf(s.inode); name != "" {
				return name, false
			}
		}
	}
	return "a program of the host", ours
}

func readSockets(path string, keep func(socketLine) bool) []socketLine {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	var found []socketLine
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if s, ok := parseSocket(lines.Text()); ok && keep(s) {
			found = append(found, s)
		}
	}
	return found
}

// holderOf finds the process that has a socket open, as "name (process N)", or "".
func holderOf(inode string) string {
	wanted := "socket:[" + inode + "]"
	processes, err := os.Open("/proc")
	if err != nil {
		return ""
	}
	defer processes.Close()
	for {
		names, err := processes.Readdirnames(256)
		for _, pid := range names {
			if _, err := strconv.Atoi(pid); err != nil {
				continue
			}
			if hasOpen("/proc/"+pid+"/fd", wanted) {
				comm, _ := os.ReadFile("/proc/" + pid + "/comm")
				return fmt.Sprintf("%s (process %s)", bytes.TrimSpace(comm), pid)
			}
		}
		if err == io.EOF || err != nil {
			return ""
		}
	}
}

func hasOpen(dir, wanted string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == wanted {
			return true
		}
	}
	return false
}
