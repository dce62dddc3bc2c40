package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	pageSize = 4096
	// maxMapped bounds what is looked at. Unit: bytes.
	maxMapped = 1 << 40
	// maxImage bounds an image. Unit: bytes.
	maxImage = 1 << 30
	// maxGap is how many pages without content may lie between two with, which are one
	// run then: a mapping costs more.
	maxGap = 4
	// top is where the memory of processes ends, and bottom where it may begin.
	// Source: linux/arch/x86, TASK_SIZE with four levels of pages; vm.mmap_min_addr.
	top, bottom = 0x7ffffffff000, 0x10000
)

// area is a mapping of the process's.
type area struct {
	start, end uint64
	prot       uint64
	shared     bool
	offset     uint64
	inode      uint64
	path       string
	wiped      bool // no child has its content, nor may a copy
	runs       []run
}

// run are pages with content of their own, which lie in the image at offset.
type run struct{ start, end, offset uint64 }

// areas reads /proc/PID/smaps.
func (p *traced) areas() (all []area, err error) {
	b, err := os.ReadFile(p.proc("smaps"))
	if err != nil {
		return nil, err
	}
	total := uint64(0)
	for l := range bytes.Lines(b) {
		var a area
		var how, device string
		text := strings.TrimSuffix(string(l), "\n")
		if name, value, ok := strings.Cut(text, ":"); ok && !strings.Contains(name, " ") { // of the area before
			if n := len(all); name == "VmFlags" && n > 0 {
				for _, flag := range strings.Fields(value) { // MADV_WIPEONFORK, and what random numbers are drawn from
					all[n-1].wiped = all[n-1].wiped || flag == "wf" || flag == "dp"
				}
			}
			continue
		}
		if _, err := fmt.Sscanf(text, "%x-%x %4s %x %s %d", &a.start, &a.end, &how, &a.offset, &device, &a.inode); err != nil {
			return nil, fmt.Errorf("read %q of its memory: %w", text, err)
		}
		if f := strings.SplitN(text, " ", 6); len(f) == 6 { // a path may begin with a blank
			if i := strings.IndexByte(f[5], ' '); i >= 0 {
				a.path = strings.TrimLeft(f[5][i:], " ")
			}
		}
		for i, bit := range map[int]uint64{0: unix.PROT_READ, 1: unix.PROT_WRITE, 2: unix.PROT_EXEC} {
			if how[i] != '-' {
				a.prot |= bit
			}
		}
		a.shared = how[3] == 's'
		if a.start >= top { // the kernel's own, which every process has
			continue
		}
		if total += a.end - a.start; total > maxMapped {
			return nil, errors.New("it has too much memory mapped")
		}
		all = append(all, a)
	}
	return all, nil
}

// kernels tells whether a is what the kernel puts into every process.
func (a *area) kernels() bool { return strings.HasPrefix(a.path, "[v") } // vdso, vvar, vvar_vclock

// named tells whether a is of a file that has a name.
func (a *area) named() bool {
	return strings.HasPrefix(a.path, "/") && !strings.HasPrefix(a.path, "/memfd:") && !strings.HasSuffix(a.path, " (deleted)")
}

// Bits of an entry of /proc/PID/pagemap. Source: Documentation/admin-guide/mm/pagemap.rst.
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageOfFile  = 1 << 61
)

// own are the pages of a that are the process's alone, in order, as runs without offset.
func (p *traced) own(a *area, pagemap *os.File) (all []run, err error) {
	b := make([]byte, 256<<10)
	for at := a.start; at < a.end; {
		n := min(uint64(len(b)), (a.end-at)/pageSize*8)
		if _, err := pagemap.ReadAt(b[:n], int64(at/pageSize*8)); err != nil {
			return nil, err
		}
		for i := uint64(0); i < n; i += 8 {
			e := binary.LittleEndian.Uint64(b[i:])
			if e&pageSwapped != 0 || e&pagePresent != 0 && e&pageOfFile == 0 {
				all = appendRun(all, at)
			}
			at += pageSize
		}
	}
	return all, nil
}

// appendRun appends the page at to all, and to the last run where that ends there.
func appendRun(all []run, at uint64) []run {
	if n := len(all); n > 0 && at == all[n-1].end {
		all[n-1].end = at + pageSize
		return all
	}
	return append(all, run{start: at, end: at + pageSize})
}

// writer collects the pages of an image.
type writer struct {
	to *os.File
	at uint64
}

var zeros [pageSize]byte

// pages writes those of runs that read returns, and says where they lie. Where keep is not set,
// pages of zeros are left out.
func (w *writer) pages(runs []run, keep bool, read func(b []byte, at uint64) error) (all []run, err error) {
	b := make([]byte, 1<<20)
	for _, r := range runs {
		for at := r.start; at < r.end; {
			part := b[:min(uint64(len(b)), r.end-at)]
			if err := read(part, at); err != nil {
				return nil, fmt.Errorf("read its memory at %x: %w", at, err)
			}
			for ; len(part) > 0; part = part[pageSize:] {
				if page := part[:pageSize]; keep || !bytes.Equal(page, zeros[:]) {
					if all, err = w.page(all, at, keep, page); err != nil {
						return nil, err
					}
				}
				at += pageSize
			}
		}
	}
	return all, nil
}

// page writes one.
func (w *writer) page(all []run, at uint64, keep bool, page []byte) ([]run, error) {
	n := len(all)
	switch {
	case n > 0 && all[n-1].end == at:
	case n > 0 && !keep && at-all[n-1].end <= maxGap*pageSize: // what is between stays zero
		w.at += at - all[n-1].end
	default:
		all = append(all, run{start: at, offset: w.at})
		n++
	}
	all[n-1].end = at + pageSize
	if w.at > maxImage {
		return nil, errors.New("it has too much memory in use")
	}
	_, err := w.to.WriteAt(page, int64(w.at))
	w.at += pageSize
	return all, err
}

// content writes what of a is in no file.
func (p *traced) content(a *area, pagemap *os.File, w *writer) error {
	own, err := p.own(a, pagemap)
	if err != nil {
		return err
	}
	mine := func(b []byte, at uint64) error {
		_, err := p.memory.ReadAt(b, int64(at))
		return err
	}
	if a.inode == 0 || a.named() {
		a.runs, err = w.pages(own, a.inode != 0, mine)
		return err
	}
	// A file that is in memory only: its content, and over it what the process has changed.
	f, err := os.Open(p.proc("map_files/" + strconv.FormatUint(a.start, 16) + "-" + strconv.FormatUint(a.end, 16)))
	if err != nil {
		return err
	}
	defer f.Close()
	all := own
	for at := int64(a.offset); ; {
		from, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		if at, err = f.Seek(from, unix.SEEK_HOLE); err != nil {
			return err
		}
		end := min(uint64(at)-a.offset+a.start, a.end)
		for page := uint64(from)&^(pageSize-1) - a.offset + a.start; page < end; page += pageSize {
			all = append(all, run{start: page, end: page + pageSize})
		}
		if end == a.end {
			break
		}
	}
	slices.SortFunc(all, func(x, y run) int {
		if x.start < y.start {
			return -1
		}
		return 1
	})
	var merged []run
	for _, r := range all {
		if n := len(merged); n > 0 && r.start <= merged[n-1].end {
			merged[n-1].end = max(merged[n-1].end, r.end)
		} else {
			merged = append(merged, r)
		}
	}
	// By the file where the page is its, so that the process maps no more than it has.
	a.runs, err = w.pages(merged, false, func(b []byte, at uint64) error {
		if _, err := f.ReadAt(b, int64(at-a.start+a.offset)); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for _, r := range own {
			from, to := max(r.start, at), min(r.end, at+uint64(len(b)))
			if from >= to {
				continue
			}
			if err := mine(b[from-at:to-at], from); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

const (
	anonymous = unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	private   = unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_NORESERVE
	noFile    = ^uint64(0)
	atCWD     = ^uint64(99) // AT_FDCWD
)

// remember has the list bring about the memory. The image is at descriptor own, and
// free is the lowest number that is.
func (p *program) remember(all []area, own, free int) {
	var kernels []area
	for _, a := range all {
		if a.kernels() {
			kernels = append(kernels, a)
		}
	}
	vdso := uint64(0)
	for _, a := range kernels {
		if a.path == "[vdso]" {
			vdso = a.start
		}
	}
	beside := p.base + programRoom/2 // where what the kernel has put into a copy lies until the rest is mapped
	aside := func(a area) uint64 { return beside + a.start - kernels[0].start }
	end := beside
	for _, a := range kernels {
		p.addAs(nearVDSO, unix.SYS_MREMAP, a.start-vdso, a.end-a.start, a.end-a.start, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, aside(a))
		end = aside(a) + a.end - a.start
	}
	p.add(unix.SYS_MUNMAP, bottom, p.base-bottom)
	p.add(unix.SYS_MUNMAP, end, top-end)
	open := ""
	for _, a := range all {
		if a.kernels() {
			continue
		}
		if a.inode != 0 && a.named() {
			if a.path != open {
				if open != "" {
					p.add(unix.SYS_CLOSE, uint64(free))
				}
				p.addFor(free, unix.SYS_OPENAT, atCWD, p.text(a.path), unix.O_RDONLY|unix.O_CLOEXEC)
				open = a.path
			}
			flags := uint64(private)
			if a.shared {
				flags = unix.MAP_SHARED | unix.MAP_FIXED
			}
			p.add(unix.SYS_MMAP, a.start, a.end-a.start, a.prot, flags, uint64(free), a.offset)
		} else {
			flags, start := uint64(anonymous), a.start
			if a.path == "[stack]" {
				flags |= unix.MAP_GROWSDOWN
				start -= stackRoom
			}
			p.add(unix.SYS_MMAP, start, a.end-start, a.prot, flags, noFile, 0)
		}
		for _, r := range a.runs {
			p.add(unix.SYS_MMAP, r.start, r.end-r.start, a.prot, private, uint64(own), r.offset)
		}
	}
	if open != "" {
		p.add(unix.SYS_CLOSE, uint64(free))
	}
	for _, a := range kernels {
		p.add(unix.SYS_MREMAP, aside(a), a.end-a.start, a.end-a.start, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.start)
	}
}

// stackRoom is how much further down the first thread's stack begins, so that it can grow
// from there.
const stackRoom = 64 << 10

// depend notes the file of the host's that a is of.
func (i *Image) depend(p *traced, a *area) error {
	if a.inode == 0 || !a.named() {
		if a.shared {
			return fmt.Errorf("memory that is shared (%s) cannot be written down", a.path)
		}
		return nil
	}
	if a.shared && a.prot&2 != 0 {
		return fmt.Errorf("memory that is shared (%s) cannot be written down", a.path)
	}
	if n := len(i.needs); n > 0 && i.needs[n-1].path == a.path {
		return nil
	}
	mapped, err := versionOf(p.proc("map_files/" + strconv.FormatUint(a.start, 16) + "-" + strconv.FormatUint(a.end, 16)))
	if err != nil {
		return err
	}
	now, err := versionOf(a.path)
	if err != nil {
		return err
	}
	if now != mapped {
		return fmt.Errorf("%s is not what the process has mapped any more", a.path)
	}
	i.needs = append(i.needs, needed{a.path, now})
	return nil
}
