package cli

import (
	"bufio"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/unit"
)

// maxRange bounds a range of ports.
const maxRange = 1024

// parsePort reads [IP:]HOST:PORT[/proto], where HOST and PORT may be ranges of
// the same length. Kinds: Invalid.
func parsePort(text string) ([]api.Port, error) {
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
	case to-from >= maxRange:
		return nil, bad("the range is longer than " + strconv.Itoa(maxRange))
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

// parseVolume reads SRC:DST[:ro|rw]. A relative source means one below dir.
// Kinds: Invalid.
func parseVolume(text, dir string) (api.Volume, error) {
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

// parseTmpfs reads PATH[:size=SIZE,mode=OCTAL]. Kinds: Invalid.
func parseTmpfs(text string) (api.Tmpfs, error) {
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

// parseLabel reads NAME[=VALUE]. Kinds: Invalid.
func parseLabel(text string) (name, value string, err error) {
	name, value, _ = strings.Cut(text, "=")
	if name == "" {
		return "", "", fault.Invalidf("%q is not a label", text).At("label").Help("write NAME=VALUE, such as team=web")
	}
	return name, value, nil
}

// parseEnv completes NAME with the caller's value; one that the caller does not
// have is left out, as docker does. Kinds: Invalid.
func parseEnv(list []string, lookup func(string) (string, bool)) ([]string, error) {
	var all []string
	for _, one := range list {
		name, _, given := strings.Cut(one, "=")
		if name == "" || strings.ContainsAny(one, "\x00") {
			return nil, fault.Invalidf("%q is not a variable", one).At("env").Help("write NAME=value, or NAME to hand on your own value")
		}
		if given {
			all = append(all, one)
		} else if value, ok := lookup(name); ok {
			all = append(all, name+"="+value)
		}
	}
	return all, nil
}

// readEnvFile reads lines of NAME=value or NAME; empty ones and those that start with # are skipped.
func readEnvFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Invalidf("the file cannot be read: %w", err).At("env-file")
	}
	defer f.Close()
	var all []string
	lines := bufio.NewScanner(io.LimitReader(f, 4<<20))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, strings.TrimSuffix(line, "\r"))
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fault.Invalidf("a line of %s is longer than 1 MiB", path).At("env-file")
	} else if err != nil {
		return nil, fault.Invalidf("the file %s cannot be read: %w", path, err).At("env-file")
	}
	return all, nil
}

// parseRestart reads no, on-failure[:N], always or unless-stopped. Kinds: Invalid.
func parseRestart(text string) (api.Restart, error) {
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

// side is one side of a copy: a path inside an environment, or one of the host's.
type side struct {
	name string // of the environment; "" for the host
	path string
}

// parseSide reads NAME:PATH, PATH, or - for a tar stream. What starts with a
// slash or a dot is always the host's. Kinds: Invalid.
func parseSide(text string) (side, error) {
	if text == "" {
		return side{}, fault.Invalidf("a path is empty").Help("write PATH or NAME:PATH")
	}
	if text == "-" || text[0] == '/' || text[0] == '.' {
		return side{path: text}, nil
	}
	name, path, inside := strings.Cut(text, ":")
	if !inside || strings.Contains(name, "/") {
		return side{path: text}, nil
	}
	if name == "" || path == "" {
		return side{}, fault.Invalidf("%q is neither PATH nor NAME:PATH", text).Help("write NAME:PATH, such as web:/etc/nginx")
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // paths inside are absolute, as docker has it
	}
	return side{name: name, path: path}, nil
}

// parseMoment reads a time: RFC 3339, or a span such as 10m that lies before
// now, or seconds since 1970. Kinds: Invalid.
func parseMoment(field, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s >= 0 && s < 1e11 {
		whole := int64(s)
		return time.Unix(whole, int64((s-float64(whole))*1e9)), nil
	}
	return time.Time{}, fault.Invalidf("%q is not a time", text).At(field).Help("write 2026-01-31T12:00:00Z, or how long ago, such as 10m")
}
