package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// descriptor is one that the process has and is not given.
type descriptor struct {
	number  int
	alone   bool // it is made, and must have no double
	make    call // it, as the lowest number that is free
	watches []watch
}

// watch is what a poll looks at.
type watch struct {
	number int
	events uint32
	data   uint64
}

// table is what a copy does with descriptors: those of given files stay where they are or are
// doubled, all others are made.
type table struct {
	image int         // where the image lies until memory is mapped
	stay  []int       // given ones that the process has where it was given them
	away  map[int]int // given ones that it has not, and where they lie until doubles are made
	made  []descriptor
	std   map[int]int // standard streams that are doubles of given ones, and of which
}

// descriptors finds out what the process has.
func (p *traced) descriptors(o Options, prog *program) (t table, err error) {
	found, err := numbers(p.proc("fd"))
	if err != nil {
		return t, err
	}
	slices.Sort(found)
	t = table{image: max(o.Own, slices.Max(found)) + 1, stay: []int{0, 1, 2}, away: map[int]int{}, std: map[int]int{}}
	same := map[FileID]int{}
	next := t.image
	for _, n := range slices.Sorted(maps.Keys(o.Given)) {
		id := o.Given[n]
		if now, err := p.file(n); err == nil && now == id {
			t.stay = append(t.stay, n)
			same[id] = n
			continue
		}
		next++
		t.away[n], same[id] = next, next
	}
	for i, n := range found {
		if slices.Contains(t.stay, n) {
			if id, err := p.file(n); n <= 2 && err == nil && same[id] != 0 {
				t.std[n] = same[id]
			}
			continue
		}
		d, err := p.descriptor(n, same, prog)
		if err == nil && d.alone {
			err = p.single(n, found[:i])
		}
		if err != nil {
			return t, fault.Conflictf("descriptor %d: %w", n, err)
		}
		t.made = append(t.made, d)
	}
	return t, nil
}

// single makes sure that descriptor n is the double of none of others.
func (p *traced) single(n int, others []int) error {
	const file = 0 // KCMP_FILE
	for _, other := range others {
		order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(p.pid), uintptr(p.pid), file, uintptr(n), uintptr(other), 0)
		if errno != 0 {
			return fmt.Errorf("kcmp: %w", errno)
		}
		if order == 0 {
			return fmt.Errorf("it is the same as %d, which cannot be written down", other)
		}
	}
	return nil
}

// file tells files apart.
func (p *traced) file(n int) (FileID, error) {
	var st unix.Stat_t
	err := unix.Stat(p.proc("fd/"+strconv.Itoa(n)), &st)
	return FileID{uint64(st.Dev), st.Ino}, err
}

func (p *traced) descriptor(n int, same map[FileID]int, put *program) (d descriptor, err error) {
	d.number = n
	link, err := os.Readlink(p.proc("fd/" + strconv.Itoa(n)))
	if err != nil {
		return d, err
	}
	info, err := os.ReadFile(p.proc("fdinfo/" + strconv.Itoa(n)))
	if err != nil {
		return d, err
	}
	number := func(name string, base int) (v uint64) {
		text, ok := line(info, name)
		if ok && err == nil {
			v, err = strconv.ParseUint(text, base, 64)
		}
		return v
	}
	flags := number("flags", 8)
	kept := flags & (unix.O_NONBLOCK | unix.O_CLOEXEC)
	d.alone = strings.HasPrefix(link, "anon_inode:")
	switch link {
	case "anon_inode:[eventfd]":
		if number("eventfd-semaphore", 10) == 1 {
			kept |= unix.EFD_SEMAPHORE
		}
		d.make = call{number: unix.SYS_EVENTFD2, args: [6]uint64{number("eventfd-count", 16), kept}}
	case "anon_inode:[signalfd]":
		d.make = call{number: unix.SYS_SIGNALFD4, args: [6]uint64{^uint64(0), put.words(number("sigmask", 16)), 8, kept}}
	case "anon_inode:[eventpoll]":
		d.make = call{number: unix.SYS_EPOLL_CREATE1, args: [6]uint64{kept & unix.O_CLOEXEC}}
		if d.watches, err = watches(info); err != nil {
			return d, err
		}
	case "/dev/null", "/dev/urandom":
		d.make = call{number: unix.SYS_OPENAT, args: [6]uint64{atCWD, put.text(link), flags &^ unix.O_CREAT}}
	default:
		id, err := p.file(n)
		if err != nil {
			return d, err
		}
		from, ok := same[id]
		if !ok || strings.HasPrefix(link, "anon_inode:") {
			return d, fmt.Errorf("%s cannot be written down", link)
		}
		again := uint64(unix.F_DUPFD)
		if flags&unix.O_CLOEXEC != 0 {
			again = unix.F_DUPFD_CLOEXEC
		}
		d.make = call{number: unix.SYS_FCNTL, args: [6]uint64{uint64(from), again, 0}}
	}
	return d, err
}

// line is the value of a line of fdinfo.
func line(info []byte, name string) (string, bool) {
	for l := range bytes.Lines(info) {
		if rest, ok := bytes.CutPrefix(l, []byte(name+":")); ok {
			return string(bytes.TrimSpace(rest)), true
		}
	}
	return "", false
}

// watches reads what a poll looks at. Source: proc(5), fdinfo of epoll.
func watches(info []byte) (all []watch, err error) {
	for l := range bytes.Lines(info) {
		if !bytes.HasPrefix(l, []byte("tfd:")) {
			continue
		}
		var w watch
		if _, err := fmt.Sscanf(string(l), "tfd: %d events: %x data: %x", &w.number, &w.events, &w.data); err != nil {
			return nil, fmt.Errorf("what a poll looks at: %w", err)
		}
		all = append(all, w)
	}
	return all, nil
}

// aside has the list put away what is in the place of others.
func (t *table) aside(prog *program, own int) {
	move := func(from, to int) {
		prog.addFor(to, unix.SYS_FCNTL, uint64(from), unix.F_DUPFD_CLOEXEC, uint64(to))
		prog.add(unix.SYS_CLOSE, uint64(from))
	}
	move(own, t.image)
	for _, n := range slices.Sorted(maps.Keys(t.away)) { // in the order of where they go
		move(n, t.away[n])
	}
}

// open has the list make the descriptors. The kernel gives the lowest number that is free, so those
// below it that are not in use are for a moment.
func (t *table) open(prog *program) {
	var spare []int
	next := 3
	fill := func(to int) {
		for ; next < to; next++ {
			if !slices.Contains(t.stay, next) {
				prog.addFor(next, unix.SYS_FCNTL, 0, unix.F_DUPFD_CLOEXEC, 0)
				spare = append(spare, next)
			}
		}
	}
	for _, d := range t.made {
		fill(d.number)
		prog.addFor(d.number, d.make.number, d.make.args[:]...)
		next = d.number + 1
	}
	for _, n := range slices.Sorted(maps.Keys(t.std)) {
		prog.add(unix.SYS_DUP3, uint64(t.std[n]), uint64(n), 0)
	}
	spare = append(spare, slices.Sorted(maps.Values(t.away))...)
	for _, n := range append(spare, t.image) {
		prog.add(unix.SYS_CLOSE, uint64(n))
	}
	for _, d := range t.made {
		for _, w := range d.watches {
			var b []byte // struct epoll_event, which is packed here
			b = binary.LittleEndian.AppendUint32(b, w.events)
			b = binary.LittleEndian.AppendUint64(b, w.data)
			prog.add(unix.SYS_EPOLL_CTL, uint64(d.number), unix.EPOLL_CTL_ADD, uint64(w.number), prog.put(b))
		}
	}
}

// free is the lowest number that is free while memory is mapped.
func (t *table) free() int {
	for n := 3; ; n++ {
		if !slices.Contains(t.stay, n) {
			return n
		}
	}
}

// flags has descriptors that stay be as the process had them.
func (p *traced) flags(t table, prog *program) error {
	for _, n := range t.stay {
		info, err := os.ReadFile(p.proc("fdinfo/" + strconv.Itoa(n)))
		if errors.Is(err, os.ErrNotExist) { // of the standard streams
			prog.addAs(mayFail, unix.SYS_CLOSE, uint64(n))
			continue
		}
		if err != nil {
			return err
		}
		text, _ := line(info, "flags")
		flags, err := strconv.ParseUint(text, 8, 64)
		if err != nil {
			return err
		}
		if n > 2 { // those are others' too
			prog.add(unix.SYS_FCNTL, uint64(n), unix.F_SETFL, flags&(unix.O_NONBLOCK|unix.O_APPEND))
		}
		if flags&unix.O_CLOEXEC != 0 {
			prog.add(unix.SYS_FCNTL, uint64(n), unix.F_SETFD, unix.FD_CLOEXEC)
		}
	}
	return nil
}
