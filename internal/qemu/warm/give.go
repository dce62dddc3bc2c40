package warm

import (
	"context"
	"os"
	"strconv"

	"github.com/strata-project/strata/internal/qemu"
	"github.com/strata-project/strata/internal/qemu/argv"
)

// Disks are what Give puts behind a machine's block devices.
type Disks struct {
	Template *os.File // opened for reading only
	Disk     *os.File
	Size     int64 // of the private disk, in bytes; 0: that of the source's
	Ring     bool  // see qemu.Program
}

// Sets that the descriptors of Disks lie in; those of a command line have the number of
// their descriptor.
const templateSet, diskSet = 1 << 20, 1<<20 + 1

// Give puts d behind the devices of a machine that stands still and has nothing of its disks
// in use, and lets it go on. What was behind them is closed.
//
// The devices and the nodes that they have stay; only the files below those nodes are
// exchanged (blockdev-reopen, from QEMU 7.0 on). To exchange the nodes themselves, by the devices' property
// "drive", kills QEMU 7.2 when a size is announced afterwards.
func Give(ctx context.Context, q *qemu.QMP, d Disks) error {
	before, err := sets(ctx, q)
	if err != nil {
		return err
	}
	for _, one := range []exchange{{d.Template, templateSet, qemu.TemplateNode, true}, {d.Disk, diskSet, qemu.DiskNode, false}} {
		if err := one.do(ctx, q, d.Ring); err != nil {
			return err
		}
	}
	for _, set := range before {
		if err := q.Execute(ctx, "remove-fd", map[string]int{"fdset-id": set}, nil); err != nil {
			return err
		}
	}
	return resume(ctx, q, d.Size)
}

// sets are the numbers of all sets of descriptors, which are those of disks.
func sets(ctx context.Context, q *qemu.QMP) (all []int, err error) {
	var found []struct {
		Number int `json:"fdset-id"`
	}
	err = q.Execute(ctx, "query-fdsets", nil, &found)
	for _, f := range found {
		all = append(all, f.Number)
	}
	return all, err
}

// exchange puts another file below a node.
type exchange struct {
	file     *os.File
	set      int
	node     string
	readOnly bool
}

func (e exchange) do(ctx context.Context, q *qemu.QMP, ring bool) error {
	if err := q.Execute(ctx, "add-fd", map[string]int{"fdset-id": e.set}, nil, e.file); err != nil {
		return err
	}
	given, cache := "given-"+e.node, map[string]bool{"direct": false}
	file := map[string]any{
		"driver": "file", "node-name": given, "filename": "/dev/fdset/" + strconv.Itoa(e.set), "aio": argv.AIO(ring),
		"read-only": e.readOnly, "cache": cache,
	}
	// All that is not said is as it is by default, so that it is what argv.Args.File says.
	node := map[string]any{"driver": "raw", "node-name": e.node, "file": given, "read-only": e.readOnly, "cache": cache}
	if !e.readOnly {
		file["discard"], node["discard"] = "unmap", "unmap"
	}
	if err := q.Execute(ctx, "blockdev-add", file, nil); err != nil {
		return err
	}
	return q.Execute(ctx, "blockdev-reopen", map[string]any{"options": []any{node}}, nil)
}
