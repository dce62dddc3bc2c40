package argv

import (
	"encoding/json"
	"strconv"
)

// Image is a file that QEMU reads, or a part of it, by a descriptor of QEMU's own.
type Image struct {
	Format       string // QEMU's name of it: raw, qcow2, vmdk, vdi, vhdx, vpc
	FD           int
	Offset, Size int64 // of a raw image inside the file; Size 0: all of it
	Named        []int // further descriptors, which the image names as Set(FD)

	// Uneven says that the file ends within a sector. QEMU 7.2 waits for ever for the
	// rest of it where it reads by io_uring.
	Uneven bool
}

// Node is a block device. Source: QEMU, qapi/block-core.json, BlockdevOptions.
type Node struct {
	Driver   string `json:"driver"`
	Name     string `json:"node-name,omitempty"`
	ReadOnly bool   `json:"read-only"`
	Discard  string `json:"discard,omitempty"`
	Offset   int64  `json:"offset,omitempty"`
	Size     int64  `json:"size,omitempty"`
	File     Opened `json:"file"`
	Backing  any    `json:"backing,omitempty"` // a node's name, a Node, or Nothing
}

// Opened is a node's file.
type Opened struct {
	Driver   string `json:"driver"`
	Filename string `json:"filename"`
	AIO      string `json:"aio,omitempty"`
	ReadOnly bool   `json:"read-only"`
}

// Nothing as a node's Backing keeps QEMU from opening what the image's own header
// names.
var Nothing = json.RawMessage("null")

// Node is how QEMU is told of the image, which it finds at path, and which lies over
// backing; nil where it lies over nothing.
func (i Image) Node(name, path string, readOnly bool, backing any) Node {
	n := Node{
		Driver: i.Format, Name: name, ReadOnly: readOnly, Backing: backing,
		File: Opened{Driver: "file", Filename: path, ReadOnly: readOnly},
	}
	if i.Format == "raw" {
		n.Offset, n.Size = i.Offset, i.Size
	}
	if backing == nil && (i.Format == "qcow2" || i.Format == "vmdk") { // the others have no such field
		n.Backing = Nothing
	}
	return n
}

// Chain makes images a block device by the name of id, of which each lies over the
// next. Only the first is written to, where it is not readOnly.
func (a *Args) Chain(id string, images []Image, readOnly, ring bool) {
	var backing any
	for i := len(images) - 1; i >= 0; i-- {
		for _, fd := range images[i].Named {
			a.FD(fd)
		}
		name := id
		if i > 0 {
			name += "-" + strconv.Itoa(i)
		}
		n := images[i].Node(name, a.FD(images[i].FD), readOnly || i > 0, backing)
		n.File.AIO = AIO(ring && !images[i].Uneven)
		if !n.ReadOnly {
			n.Discard = "unmap" // discarded blocks become holes of the image again
		}
		a.Node(n)
		backing = name
	}
}
