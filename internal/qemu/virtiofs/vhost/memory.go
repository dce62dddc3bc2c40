package vhost

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// region is a part of the machine's memory.
type region struct {
	physical uint64 // its address in the machine
	user     uint64 // its address in QEMU
	data     []byte
	mapped   []byte // data, and what is before it in its file
}

// maxRegion bounds a region: more is more than a process can map.
const maxRegion = 1 << 46

// setMemory maps the machine's memory anew. Requests that are handled end first.
func (d *device) setMemory(m *message) error {
	le := binary.LittleEndian
	if len(m.payload) < 8 {
		return fmt.Errorf("a table of memory has %d bytes", len(m.payload))
	}
	count, table := int64(le.Uint32(m.payload)), m.payload[8:]
	if count != int64(len(m.files)) || int64(len(table)) < 32*count {
		return fmt.Errorf("%d regions of memory come with %d descriptors and %d bytes", count, len(m.files), len(table))
	}
	if err := d.alone(); err != nil {
		return err
	}
	defer d.memory.Unlock()
	for _, r := range d.regions {
		_ = unix.Munmap(r.mapped)
	}
	d.regions = nil
	for i := range count {
		entry := table[32*i:]
		r := region{physical: le.Uint64(entry), user: le.Uint64(entry[16:])}
		size, before := le.Uint64(entry[8:]), le.Uint64(entry[24:])
		if size == 0 || size > maxRegion || before > maxRegion || r.physical+size < r.physical || r.user+size < r.user {
			return fmt.Errorf("a region of memory has %#x bytes at %#x, %#x in its file", size, r.physical, before)
		}
		var err error
		// From the file's beginning: of large pages only whole ones can be left out.
		r.mapped, err = unix.Mmap(m.files[i], 0, int(before+size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
		if err != nil {
			return fmt.Errorf("map %#x bytes of memory: %w", size, err)
		}
		r.data = r.mapped[before:]
		d.regions = append(d.regions, r)
	}
	for _, q := range d.queues {
		if q.rings != nil {
			_ = q.place() // where they are nowhere now, QEMU tells where before it uses the queue again
		}
	}
	return nil
}

// atUser returns size bytes at an address of QEMU's.
func (d *device) atUser(address, size uint64) ([]byte, error) {
	for _, r := range d.regions {
		if at := address - r.user; address >= r.user && at < uint64(len(r.data)) && size <= uint64(len(r.data))-at {
			return r.data[at : at+size : at+size], nil
		}
	}
	return nil, fmt.Errorf("%#x bytes at %#x are not the machine's memory", size, address)
}

// append adds the size bytes at an address of the machine's to a list of buffers.
func (d *device) append(to [][]byte, address uint64, size uint32) ([][]byte, error) {
next:
	for size > 0 {
		for _, r := range d.regions {
			if at := address - r.physical; address >= r.physical && at < uint64(len(r.data)) {
				n := min(uint64(size), uint64(len(r.data))-at)
				to = append(to, r.data[at:at+n:at+n])
				address, size = address+n, size-uint32(n)
				continue next
			}
		}
		return nil, fmt.Errorf("%#x bytes at %#x are not the machine's memory", size, address)
	}
	return to, nil
}
