package logfile

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say what to read of a log. The zero value reads all that is there.
type Options struct {
	Since  int64 // unix nanoseconds; records before are left out
	Tail   int   // at most so many of the last lines; 0: all of them, less than 0: none
	Follow bool  // go on with what is written, until ctx or End ends it
	// End, when closed, says that nothing will be written any more: a reader that
	// follows reads what is there and returns. nil: only ctx ends it.
	End <-chan struct{}
}

// followEvery is how often a reader looks for more by itself, for file systems
// that do not notify.
const followEvery = 500 * time.Millisecond

// Read calls each for the records of the log in dir, oldest first, across
// rotation. A log that does not exist yet is empty. An error of each ends the
// reading and is returned; the end of ctx is the end of following, and no error.
func Read(ctx context.Context, dir string, o Options, each func(Record) error) error {
	r := &reader{dir: dir, each: each, since: o.Since}
	defer r.close()
	var watch *os.File
	if o.Follow {
		if watch = notify(dir); watch != nil {
			defer watch.Close()
		}
	}
	if o.Tail != 0 {
		if err := r.seekTail(max(o.Tail, 0)); err != nil {
			return err
		}
	}
	for {
		ended := !o.Follow || closed(o.End) || ctx.Err() != nil
		// What was written before the end was known is read after it.
		if err := r.drain(ctx); err != nil || ended {
			return err
		}
		wait(ctx, watch, o.End)
	}
}

// reader stands at one place of one file.
type reader struct {
	dir    string
	each   func(Record) error
	since  int64
	f      *os.File
	number uint64 // of f, or of the last file that was read to its end
	at     int64  // how far f was read
	record int64  // where the record stands that each is called for
	skip   int    // bytes of the next record's data to leave out
	buf    []byte
}

func (r *reader) close() {
	if r.f != nil {
		r.f.Close()
		r.f = nil
	}
}

// drain reads all that is there now.
func (r *reader) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		if r.f == nil {
			next := after(r.dir, r.number)
			if next == nil {
				return nil
			}
			r.f, r.number, r.at = next.f, next.number, fileHead
		}
		// Whether there is a later file is asked first: then this one is complete.
		later := after(r.dir, r.number)
		err := r.file(ctx)
		if later != nil {
			later.f.Close()
		}
		if err != nil || later == nil {
			return err
		}
		r.close()
	}
	return nil
}

// file passes on the whole records from r.at on.
func (r *reader) file(ctx context.Context) error {
	if r.buf == nil {
		r.buf = make([]byte, 2*(MaxData+overhead))
	}
	for ctx.Err() == nil {
		n, err := r.f.ReadAt(r.buf, r.at)
		if err != nil && err != io.EOF {
			return err
		}
		used := 0
		for {
			rec, size, err := parse(r.buf[used:n])
			if err != nil {
				used++ // damaged: the next record that is whole is looked for
				continue
			}
			if size == 0 {
				break // still being written, or torn
			}
			r.record = r.at + int64(used)
			used += size
			if r.skip > 0 {
				rec.Data, r.skip = rec.Data[min(r.skip, len(rec.Data)):], 0
			}
			if rec.Time >= r.since && len(rec.Data) > 0 {
				if err := r.each(rec); err != nil {
					return err
				}
			}
		}
		r.at += int64(used)
		if used == 0 || err == io.EOF {
			return nil
		}
	}
	return nil
}

// seekTail moves the reader to the last n lines.
func (r *reader) seekTail(n int) error {
	var files []numbered
	defer func() {
		for _, f := range files {
			f.f.Close()
		}
	}()
	for number := uint64(0); ; {
		next := after(r.dir, number)
		if next == nil {
			break
		}
		files, number = append(files, *next), next.number
	}
	// From the newest file to the oldest, until there are enough line ends. The
	// last line counts whether it has ended or not.
	found, last := 0, true
	for i := len(files) - 1; i >= 0; i-- {
		r.f, r.number, r.at = files[i].f, files[i].number, fileHead
		places, end := r.lines(&last, n-found)
		if n == 0 {
			r.at = end
		} else if found+len(places) >= n {
			p := places[len(places)-(n-found)]
			r.at, r.skip = p.at, p.skip
		} else {
			found += len(places)
			continue
		}
		files = append(files[:i], files[i+1:]...) // the reader's own now
		return nil
	}
	r.f, r.number, r.at = nil, 0, 0
	return nil
}

// place is the byte after a line's end.
type place struct {
	at   int64
	skip int
}

// lines returns the last places, at most most of them, at which a line starts
// after another's end, and where the records end. last tells whether the file's
// final line end is the log's, which starts no line; it is false from then on.
func (r *reader) lines(last *bool, most int) (places []place, end int64) {
	size := int64(-1) // of the last record's data
	record := int64(0)
	var final place
	each, since := r.each, r.since
	defer func() { r.each, r.since = each, since }()
	r.since = 0
	r.each = func(rec Record) error {
		size, record = int64(len(rec.Data)), r.record
		for i, c := range rec.Data {
			if c == '\n' && rec.Stream != Lost {
				final = place{record, i + 1}
				if places = append(places, final); len(places)/2-1 > most { // one more than asked for: the last may not count
					places = append(places[:0], places[len(places)-most-1:]...)
				}
			}
		}
		return nil
	}
	r.file(context.Background())
	end = r.at
	if size >= 0 && *last {
		*last = false
		if len(places) > 0 && final == (place{record, int(size)}) {
			places = places[:len(places)-1]
		}
	}
	return places, end
}

// numbered is a file of a log.
type numbered struct {
	f      *os.File
	number uint64
}

// after opens the file with the least number above n; nil: there is none.
func after(dir string, n uint64) *numbered {
	best := look(dir, n)
	// A number that is missing was rotated away, or renamed while its folder was read.
	for i := 0; i < 2 && best != nil && n > 0 && best.number > n+1; i++ {
		best.f.Close()
		best = look(dir, n)
	}
	return best
}

func look(dir string, n uint64) (best *numbered) {
	names, err := filepath.Glob(filepath.Join(escape(dir), "log*"))
	if err != nil {
		return nil
	}
	for _, path := range names {
		if base := filepath.Base(path); base != "log" && !digits(strings.TrimPrefix(base, "log.")) {
			continue
		}
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			continue // renamed a moment ago, or not a file
		}
		var head [fileHead]byte
		got, _ := f.ReadAt(head[:], 0)
		number, ok := parseFileHead(head[:got])
		if !ok || number <= n || best != nil && number >= best.number {
			f.Close()
			continue
		}
		if best != nil {
			best.f.Close()
		}
		best = &numbered{f, number}
	}
	return best
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// escape keeps a folder's name from being a pattern.
func escape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// notify returns a file that becomes readable when the log changes; nil where
// the host has no more of these.
func notify(dir string) *os.File {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_TO|unix.IN_CREATE); err != nil {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), "inotify")
}

// wait returns when the log may have changed, or ctx or end has ended.
func wait(ctx context.Context, watch *os.File, end <-chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, followEvery)
	defer cancel()
	if watch == nil {
		select {
		case <-ctx.Done():
		case <-end:
		}
		return
	}
	done := make(chan struct{})
	left := make(chan struct{})
	watch.SetReadDeadline(time.Time{}) // before the other can set one that is to stay
	go func() {
		defer close(left)
		select {
		case <-ctx.Done():
		case <-end:
		case <-done:
			return
		}
		watch.SetReadDeadline(time.Unix(1, 0))
	}()
	_, err := watch.Read(make([]byte, 4096))
	close(done)
	<-left
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		<-ctx.Done()
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
