package machine

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// layerFormat is QEMU's name of a layer's format.
const layerFormat = "qcow2"

// Of the format. Source: QEMU, docs/interop/qcow2.txt.
const (
	qcowMagic    = 0x514649fb
	qcowVersion  = 3
	qcowHeader   = 104
	clusterBits  = 16
	cluster      = 1 << clusterBits
	entrySize    = 8                                  // of the tables
	mapped       = cluster / entrySize << clusterBits // bytes that one entry of the first table stands for
	refcountBits = 4                                  // 16, as a power of two
	maxLayer     = cluster / entrySize * mapped       // what one cluster of the first table maps
)

// layer returns an empty image in memory of a disk of size bytes, which shows what it
// lies over wherever nothing was written. It names no other image: QEMU is told.
func layer(size int64) (*os.File, error) {
	if size > maxLayer {
		return nil, fault.Unablef("the template's image is larger than a machine can have: %d bytes", size).At("template")
	}
	fd, err := unix.MemfdCreate("strata-layer", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fault.Internalf("make a layer for a disk: %w", err)
	}
	f := os.NewFile(uintptr(fd), "layer")
	for i, part := range emptyLayer(size) {
		if _, err := f.WriteAt(part, int64(i)*cluster); err != nil {
			f.Close()
			return nil, fault.Internalf("make a layer for a disk: %w", err)
		}
	}
	if err := f.Truncate(layerClusters * cluster); err != nil {
		f.Close()
		return nil, fault.Internalf("make a layer for a disk: %w", err)
	}
	return f, nil
}

// The clusters of an empty layer.
const (
	refcountTable = iota + 1
	refcountBlock
	firstTable
	layerClusters
)

// emptyLayer is what the clusters begin with. The rest is zeros, the first table as well.
func emptyLayer(size int64) [firstTable][]byte {
	be := binary.BigEndian
	h := make([]byte, qcowHeader+8) // and the end of the header's extensions
	be.PutUint32(h[0:], qcowMagic)
	be.PutUint32(h[4:], qcowVersion)
	be.PutUint32(h[20:], clusterBits)
	be.PutUint64(h[24:], uint64(size))
	be.PutUint32(h[36:], uint32((size+mapped-1)/mapped))
	be.PutUint64(h[40:], firstTable*cluster)
	be.PutUint64(h[48:], refcountTable*cluster)
	be.PutUint32(h[56:], 1)
	be.PutUint32(h[96:], refcountBits)
	be.PutUint32(h[100:], qcowHeader)
	table := be.AppendUint64(nil, refcountBlock*cluster)
	var counts []byte
	for range layerClusters {
		counts = be.AppendUint16(counts, 1)
	}
	return [firstTable][]byte{h, table, counts}
}
