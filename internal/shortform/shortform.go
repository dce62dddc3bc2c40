package shortform

import (
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// MaxRange bounds a range of ports.
const MaxRange = 1024

// Port reads [IP:]HOST:PORT[/proto], where HOST and PORT may be ranges of
// the same length. Kinds: Invalid.
func Port(text string) ([]api.Port, error) {
	bad := func(why string) error {
		return fault.Invalidf("%q is not a published port: %s", text, why).At("publish").Help("write [IP:]HOST:PORT[/tcp|udp], such as 8080:80 or 127.0.0.1:5353:53/udp")
	}
	rest, protocol, named := strings.Cut(text, "/")
	if named && protocol != "tcp" && protocol != "udp" {
		return nil, bad("the protocol is neither tcp nor udp")
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return nil, bad("it names no port of the host")
	}
	inside, outside := rest[i+1:], rest[:i]
	ip := ""
	if j := strings.LastIndexByte(outside, ':'); j >= 0 {
		ip, outside = outside[:j], outside[j+1:]
		bare := strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")
		address, err := netip.ParseAddr(bare)
		if err != nil || address.Zone() != "" || address.Is6() != strings.HasPrefix(ip, "[") || (address.Is6() && !strings.HasSuffix(ip, "]")) {
			return nil, bad("the address is malformed (an IPv6 one stands in brackets)")
		}
		ip = address.String()
	}
	hostFrom, hostTo, ok1 := parseRange(outside)
	from, to, ok2 := parseRange(inside)
	switch {
	case !ok1 || !ok2:
		return nil, bad("a port is a number from 1 to 65535")
	case hostTo-hostFrom != to-from:
		return nil, bad("the two ranges differ in length")
	case to-from >= MaxRange:
		return nil, bad("the range is longer than " + strconv.Itoa(MaxRange))
	}
	var all []api.Port
	for n := 0; n <= to-from; n++ {
		all = append(all, api.Port{HostIP: ip, HostPort: uint16(hostFrom + n), Port: uint16(from + n), Protocol: protocol})
	}
	return all, nil
}

// parseRange reads N or N-M.
func parseRange(text string) (from, to int, ok bool) {
	low, high, ranged := strings.Cut(text, "-")
	a, err := strconv.ParseUint(low, 10, 16)
	if err != nil || a == 0 || low[0] == '+' {
		return 0, 0, false
	}
	if !ranged {
		return int(a), int(a), true
	}
	b, err := strconv.ParseUint(high, 10, 16)
	if err != nil || b < a {
		return 0, 0, false
	}
	return int(a), int(b), true
}

// Volume reads SRC:DST[:ro|rw]. A relative source means one below dir.
// Kinds: Invalid.
func Volume(text, dir string) (api.Volume, error) {
	bad := func(why string) (api.Volume, error) {
		return api.Volume{}, fault.Invalidf("%q is not a volume: %s", text, why).At("volume").Help("write SRC:DST[:ro], such as ./site:/srv:ro")
	}
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return bad("it has not two or three parts")
	}
	v := api.Volume{Source: parts[0], Target: parts[1]}
	if len(parts) == 3 {
		switch parts[2] {
		case "ro":
			v.ReadOnly = true
		case "rw":
		default:
			return bad("it ends neither with ro nor with rw")
		}
	}
	switch {
	case v.Source == "":
		return bad("the source is empty")
	case !strings.HasPrefix(v.Source, "/") && !strings.HasPrefix(v.Source, "."):
		return bad("the source is no path (a relative one starts with ./)")
	case !strings.HasPrefix(v.Target, "/"):
		return bad("the target is no absolute path")
	}
	if !filepath.IsAbs(v.Source) {
		v.Source = filepath.Join(dir, v.Source)
	}
	v.Source = filepath.Clean(v.Source)
	return v, nil
}

// Tmpfs reads PATH[:size=SIZE,mode=OCTAL]. Kinds: Invalid.
func Tmpfs(text string) (api.Tmpfs, error) {
	bad := func(why string) (api.Tmpfs, error) {
		return api.Tmpfs{}, fault.Invalidf("%q is not a tmpfs: %s", text, why).At("tmpfs").Help("write PATH[:size=SIZE,mode=OCTAL], such as /tmp:size=64M,mode=1777")
	}
	target, options, _ := strings.Cut(text, ":")
	t := api.Tmpfs{Target: target}
	if !strings.HasPrefix(target, "/") {
		return bad("the path is not absolute")
	}
	if options == "" {
		return t, nil
	}
	for one := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(one, "=")
		switch name {
		case "size":
			size, err := unit.ParseSize(value)
			if err != nil {
				return bad(fault.All(err)[0].Message)
			}
			if t.Size = size; size == 0 {
				return bad("its size is 0")
			}
		case "mode":
			mode, err := strconv.ParseUint(value, 8, 32)
			if err != nil || mode > 0o7777 {
				return bad("the mode is no octal number up to 7777")
			}
			t.Mode = uint32(mode)
		default:
			return bad("the option " + strconv.Quote(name) + " is neither size nor mode")
		}
	}
	return t, nil
}

// Restart reads no, on-failure[:N], always or unless-stopped. Kinds: Invalid.
func Restart(text string) (api.Restart, error) {
	policy, max, counted := strings.Cut(text, ":")
	r := api.Restart{Policy: policy}
	bad := fault.Invalidf("%q is not a restart policy", text).At("restart").Help("write no, on-failure, on-failure:N, always or unless-stopped")
	switch policy {
	case "no", "always", "unless-stopped", "on-failure":
	default:
		return r, bad
	}
	if !counted {
		return r, nil
	}
	n, err := strconv.ParseUint(max, 10, 20)
	if err != nil || policy != "on-failure" {
		return r, bad
	}
	r.Max = int(n)
	return r, nil
}
