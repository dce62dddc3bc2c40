package virtual

import (
	"context"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/logfile"
)

// How much of the console is shown of a system whose agent does not answer: as much
// as a keeper shows of one that ended. Units: lines, bytes.
const (
	shownLines = 20
	shownBytes = 4 << 10
)

// silent adds to err, which is of an agent that does not answer, what the console in
// dir has shown since then; another err stays as it is.
func silent(err error, dir string, since time.Time) error {
	all := fault.All(err)
	if len(all) != 1 || all[0].Field != "" || all[0].Kind != fault.Busy && all[0].Kind != fault.Unable {
		return err
	}
	words := "; the console is empty"
	if last := lastLines(dir, since); last != "" {
		words = "; the console's last lines:\n" + last
	}
	return fault.New(all[0].Kind, "%w%s", err, words).Help("%s", all[0].Hint)
}

// lastLines returns the last lines of the console in dir, without what a terminal
// would act on.
func lastLines(dir string, since time.Time) string {
	var tail []byte
	// What cannot be read is not shown: the fault is another.
	_ = logfile.Read(context.Background(), dir, logfile.Options{Since: since.UnixNano(), Tail: shownLines}, func(r logfile.Record) error {
		tail = append(tail, r.Data...)
		tail = tail[max(len(tail)-shownBytes, 0):]
		return nil
	})
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		switch {
		case c == '\r':
			return -1
		case c == '\n' || c >= ' ' && c < 0x7f:
			return c
		}
		return '?'
	}, string(tail)))
}

// LastLines returns the last lines that a system without an agent has written to its
// console since its start, and since a later time where one is given.
func (l *Live) LastLines(since time.Time) string {
	if since.Before(l.notes.Began) {
		since = l.notes.Began
	}
	return lastLines(l.notes.Console, since)
}
