package bootdisk

import (
	"bytes"
	"context"
	"debug/elf"
	"io"
	"slices"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/image"
	"github.com/strata-project/strata/internal/unit"
)

// row is a piece of the span.
type row struct {
	at    int64 // bytes from the span's begin, whole sectors
	size  int64 // bytes, whole sectors
	first int64 // its first sector in KERNEL.BIN; -1: zeros
}

// span is a kernel as it stands in memory.
type span struct {
	address  int64 // physical, where it wants to be
	size     int64 // whole pages
	entry    int64 // from address
	rows     []row // in order, without a gap
	segments []segment
}

type segment struct {
	at   int64 // from the span's begin
	size int64
	r    io.ReaderAt
}

// highest bounds a kernel's physical address: what a loader maps. Unit: bytes.
const highest = 4 << 30

// readSpan reads a kernel's program headers and finds what of it is zeros.
func readSpan(ctx context.Context, r io.ReaderAt) (*span, error) {
	e, err := elf.NewFile(r)
	if err != nil {
		return nil, fault.Invalidf("the kernel is no ELF file: %w", err).Help("a boot disk is made of an uncompressed kernel")
	}
	if e.Machine != elf.EM_X86_64 {
		return nil, fault.Unablef("the kernel is for %s, and a boot disk is for amd64", image.ArchOf(e.Machine))
	}
	s := &span{}
	if err := s.load(e); err != nil {
		return nil, err
	}
	for step := int64(16 * page); ; step *= 2 {
		if s.rows, err = s.split(ctx, step); err != nil || len(s.rows) <= mostRows {
			return s, err
		}
	}
}

// load fills in all but the rows.
func (s *span) load(e *elf.File) error {
	low, high := uint64(highest), uint64(0)
	progs := slices.DeleteFunc(slices.Clone(e.Progs), func(p *elf.Prog) bool { return p.Type != elf.PT_LOAD || p.Memsz == 0 })
	slices.SortStableFunc(progs, func(a, b *elf.Prog) int { return int(min(a.Paddr, highest)) - int(min(b.Paddr, highest)) })
	for _, p := range progs {
		if p.Paddr >= highest || p.Memsz > image.MaxKernel || p.Filesz > p.Memsz {
			return fault.Invalidf("the kernel has a segment of %d bytes at %#x, which no loader can place", p.Memsz, p.Paddr)
		}
		if p.Paddr < high {
			return fault.Invalidf("the kernel's segments overlap at %#x", p.Paddr)
		}
		low, high = min(low, p.Paddr), p.Paddr+p.Memsz
	}
	switch {
	case len(progs) == 0:
		return fault.Invalidf("the kernel has nothing to load")
	case high-low > image.MaxKernel:
		return fault.Invalidf("the kernel takes %s of memory, more than %s", unit.Size(high-low), unit.Size(image.MaxKernel))
	case low < 1<<20 || low%kernelAlign != 0:
		return fault.Invalidf("the kernel begins at %#x, which is no multiple of 2 MiB past the first", low)
	case e.Entry < low || e.Entry >= high:
		return fault.Invalidf("the kernel's entry point %#x is not in it", e.Entry)
	}
	s.address, s.entry, s.size = int64(low), int64(e.Entry-low), whole(int64(high-low), page)
	for _, p := range progs {
		s.segments = append(s.segments, segment{at: int64(p.Paddr - low), size: int64(p.Filesz), r: p.ReaderAt})
	}
	return nil
}

// split looks at the span in steps and puts those that have anything in them into
// rows of content.
func (s *span) split(ctx context.Context, step int64) ([]row, error) {
	var rows []row
	buffer, zeros := make([]byte, step), make([]byte, step)
	first := int64(0)
	for at := int64(0); at < s.size; at += step {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		size := min(step, s.size-at)
		if err := s.read(buffer[:size], at); err != nil {
			return nil, err
		}
		next := row{at: at, size: size, first: -1}
		if !bytes.Equal(buffer[:size], zeros[:size]) {
			next.first = first
			first += size / sector
		}
		if n := len(rows); n > 0 && (rows[n-1].first < 0) == (next.first < 0) {
			rows[n-1].size += size
			continue
		}
		rows = append(rows, next)
	}
	return rows, nil
}

// read fills p with the span's bytes from at.
func (s *span) read(p []byte, at int64) error {
	clear(p)
	end := at + int64(len(p))
	for _, g := range s.segments {
		from, to := max(at, g.at), min(end, g.at+g.size)
		if from >= to {
			continue
		}
		n, err := g.r.ReadAt(p[from-at:to-at], from-g.at)
		if int64(n) == to-from {
			continue
		}
		if err == nil || err == io.EOF {
			return fault.Invalidf("the kernel is truncated: a segment ends after the file")
		}
		return err
	}
	return nil
}

// stored returns how many bytes of the span are on the disk.
func (s *span) stored() int64 {
	var n int64
	for _, r := range s.rows {
		if r.first >= 0 {
			n += r.size
		}
	}
	return n
}

// write writes what is stored.
func (s *span) write(ctx context.Context, w io.Writer) error {
	buffer := make([]byte, unit.MiB)
	for _, r := range s.rows {
		for at := r.at; r.first >= 0 && at < r.at+r.size; {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := buffer[:min(int64(len(buffer)), r.at+r.size-at)]
			if err := s.read(p, at); err != nil {
				return err
			}
			if _, err := w.Write(p); err != nil {
				return err
			}
			at += int64(len(p))
		}
	}
	return nil
}

// whole rounds n up to a multiple of to.
func whole(n, to int64) int64 { return (n + to - 1) / to * to }
