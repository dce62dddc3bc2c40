// Package argv puts QEMU's command lines together. It knows how things are written
// down, and nothing of what machines have.
package argv

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Sandbox keeps QEMU from new programs, privileges and scheduling. Source: qemu(1), -sandbox.
const Sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// Args are a command line in the making, without the program.
type Args []string

// Add appends arguments as they are.
func (a *Args) Add(more ...string) { *a = append(*a, more...) }

// Device appends a device; properties that are "" are left out.
func (a *Args) Device(name string, properties ...string) {
	for _, p := range properties {
		if p != "" {
			name += "," + p
		}
	}
	a.Add("-device", name)
}

// Listening appends the descriptor of a socket that listens.
func (a *Args) Listening(id string, fd int) {
	a.Add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d,server=on,wait=off", id, fd))
}

// Connected appends the descriptor of a socket that is connected.
func (a *Args) Connected(id string, fd int) {
	a.Add("-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, fd))
}

// FD puts a descriptor into a set of its own, and returns the path by which QEMU
// opens it.
func (a *Args) FD(fd int) string {
	a.Add("-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, fd))
	return Set(fd)
}

// Set is the path by which QEMU opens a descriptor that FD has put into a set.
func Set(fd int) string { return "/dev/fdset/" + strconv.Itoa(fd) }

// File makes a descriptor a raw block device.
func (a *Args) File(id string, fd int, ring bool, properties ...string) {
	node := fmt.Sprintf("driver=raw,node-name=%s,file.driver=file,file.aio=%s,file.filename=%s", id, AIO(ring), a.FD(fd))
	for _, p := range properties {
		node += "," + p
		if p == "read-only=on" {
			node += ",file.read-only=on"
		}
	}
	a.Add("-blockdev", node)
}

// Node makes v, which is written as JSON, a block device. Source: QEMU,
// qapi/block-core.json, BlockdevOptions.
func (a *Args) Node(v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // v is a type of the caller's own, of text and numbers
	}
	a.Add("-blockdev", string(text))
}

// AIO is how files are read and written.
func AIO(ring bool) string {
	if ring {
		return "io_uring"
	}
	return "threads"
}

// OnOff is how QEMU writes a truth value.
func OnOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// Escape writes a value in which QEMU takes a comma for the end.
func Escape(value string) string {
	out := make([]byte, 0, len(value))
	for i := range len(value) {
		if value[i] == ',' {
			out = append(out, ',')
		}
		out = append(out, value[i])
	}
	return string(out)
}
