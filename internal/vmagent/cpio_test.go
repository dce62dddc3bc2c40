package vmagent_test

import (
	"bytes"
	"fmt"
)

// cpio is a "newc" archive under construction, which the kernel takes as an initramfs.
// Source: Documentation/driver-api/early-userspace/buffer-format.rst.
type cpio struct {
	bytes.Buffer
	inode int
}

func (c *cpio) add(name string, mode uint32, data []byte, major, minor int) {
	c.inode++
	fmt.Fprintf(c, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.WriteString(name)
	c.pad(true)
	c.Write(data)
	c.pad(false)
}

func (c *cpio) pad(zero bool) {
	if zero {
		c.WriteByte(0)
	}
	for c.Len()%4 != 0 {
		c.WriteByte(0)
	}
}

func (c *cpio) end() []byte {
	c.add("TRAILER!!!", 0, nil, 0, 0)
	return c.Bytes()
}
