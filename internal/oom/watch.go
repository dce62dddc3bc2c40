package oom

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// messages is where the kernel's messages are read. Source: kernel documentation,
// ABI/testing/dev-kmsg.
const messages = "/dev/kmsg"

// Watch calls tell for every kill from now on of a process in the groups below root,
// until ctx ends. Kinds: Unable where the kernel's messages may not be read.
func Watch(ctx context.Context, root string, tell func(Kill)) error {
	f, err := os.OpenFile(messages, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fault.Unablef("read the kernel's messages: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return fault.Unablef("read the kernel's messages: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	p := Parser{Root: root}
	b := make([]byte, maxLine)
	for {
		n, err := f.Read(b) // one record each
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINVAL):
			continue // some were overwritten before they were read, or one is too long
		case err != nil:
			return fault.Unablef("read the kernel's messages: %w", err)
		}
		k, ok := p.Line(text(b[:n]))
		if ok && k.ID == "" {
			k = p.find(k)
		}
		if ok && k.ID != "" {
			tell(k)
		}
	}
}

// text is the message of a record "6,1234,5678,-;message\n KEY=value\n"; "" for what a
// program wrote, whose facility is not the kernel's.
func text(record []byte) string {
	head, rest, ok := bytes.Cut(record, []byte(";"))
	level, _, _ := strings.Cut(string(head), ",")
	if n, err := strconv.Atoi(level); !ok || err != nil || n>>3 != 0 { // linux/syslog.h, LOG_KERN
		return ""
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return string(line)
}

// Console finds kills in what a system's console shows: pieces of any size.
type Console struct {
	parser Parser
	line   []byte
	long   bool // the rest of the line is not wanted
}

// Write takes a piece and returns the kills whose line ends in it.
func (c *Console) Write(piece []byte) (found []Kill) {
	for len(piece) > 0 {
		line, rest, ended := bytes.Cut(piece, []byte("\n"))
		if c.long = c.long || len(c.line)+len(line) > maxLine; !c.long {
			c.line = append(c.line, line...)
		}
		if piece = rest; !ended {
			break
		}
		if k, ok := c.parser.Line(afterTime(string(c.line))); ok && !c.long {
			found = append(found, k)
		}
		c.line, c.long = c.line[:0], false
	}
	return found
}

// afterTime leaves out "[   12.345678] ", and what ends a line of a console.
func afterTime(line string) string {
	line = strings.TrimRight(line, "\r")
	if _, rest, ok := strings.Cut(line, "] "); ok && strings.HasPrefix(line, "[") {
		return rest
	}
	return line
}

// find looks for the environment of a process that was killed.
func (p *Parser) find(k Kill) Kill {
	groups, err := os.ReadFile("/proc/" + strconv.Itoa(k.PID) + "/cgroup")
	if _, named := look(k.PID, k.Process); err != nil || !named {
		return k
	}
	return p.member(k, string(groups))
}

// Inside is the number that a process has in its innermost namespace of numbers, 0 where
// that is not to be found any more. name guards against a number that was used again.
func Inside(pid int, name string) int {
	if inner, named := look(pid, name); named {
		return inner
	}
	return 0
}

// look reads a process's innermost number, and tells whether it is there and has the name.
func look(pid int, name string) (inner int, named bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch value = strings.TrimSpace(value); key {
		case "Name":
			named = printable(value) == name
		case "NSpid":
			all := strings.Fields(value)
			inner, _ = strconv.Atoi(all[max(0, len(all)-1)])
		}
	}
	return inner, named
}
