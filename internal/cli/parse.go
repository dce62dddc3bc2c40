package cli

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

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
