package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Kind says what the caller of a failed request can do about it.
// The zero value is Internal.
type Kind uint8

// The kinds, in the order of the table in the package's comment.
const (
	Internal Kind = iota
	Invalid
	Missing
	Conflict
	Unable
	Busy
	Denied
	Full
	kinds // how many there are
)

// table is the only place where a kind meets its word and its statuses.
// Exit statuses 125-127 are left to `run` and `exec`, as docker's users expect.
var table = [kinds]struct {
	word string
	http int
	exit int
}{
	Internal: {"internal", http.StatusInternalServerError, 1},
	Invalid:  {"invalid", http.StatusBadRequest, 2},
	Missing:  {"missing", http.StatusNotFound, 3},
	Conflict: {"conflict", http.StatusConflict, 4},
	Unable:   {"unable", http.StatusNotImplemented, 5},
	Busy:     {"busy", http.StatusServiceUnavailable, 6},
	Denied:   {"denied", http.StatusForbidden, 7},
	Full:     {"full", http.StatusInsufficientStorage, 8},
}

// String returns the kind's word on the wire.
func (k Kind) String() string { return k.row().word }

// HTTP returns the HTTP status that a request with this fault ends with.
func (k Kind) HTTP() int { return k.row().http }

// Exit returns the exit status of a CLI command that failed with this fault.
func (k Kind) Exit() int { return k.row().exit }

func (k Kind) row() struct {
	word string
	http int
	exit int
} {
	if k >= kinds {
		k = Internal
	}
	return table[k]
}

// Kinds returns all kinds.
func Kinds() []Kind {
	all := make([]Kind, kinds)
	for k := range all {
		all[k] = Kind(k)
	}
	return all
}

// ParseKind returns the kind with the given word; ok is false where there is none.
func ParseKind(word string) (k Kind, ok bool) {
	for k := range kinds {
		if table[k].word == word {
			return k, true
		}
	}
	return Internal, false
}

// Error is one fault. Kind and Message are always set; Field and Hint may be empty.
type Error struct {
	Kind    Kind
	Message string // what went wrong, lower case, without a full stop
	Field   string // which part of the request is at fault
	Hint    string // what the caller can do next
	cause   error
}

// New returns a fault; format and args are those of fmt.Errorf, %w included.
func New(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), cause: errors.Unwrap(err)}
}

// At names the field at fault and returns e.
func (e *Error) At(field string) *Error { e.Field = field; return e }

// Help sets the hint and returns e.
func (e *Error) Help(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Error returns the message, with the field before it.
func (e *Error) Error() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

// Unwrap returns the cause, nil where there is none.
func (e *Error) Unwrap() error { return e.cause }

// Invalidf reports a malformed request.
func Invalidf(format string, args ...any) *Error { return New(Invalid, format, args...) }

// Missingf reports something named that does not exist.
func Missingf(format string, args ...any) *Error { return New(Missing, format, args...) }

// Conflictf reports something that exists already or whose state forbids the request.
func Conflictf(format string, args ...any) *Error { return New(Conflict, format, args...) }

// Unablef reports what this host, stratum or template cannot do.
func Unablef(format string, args ...any) *Error { return New(Unable, format, args...) }

// Busyf reports what may work later.
func Busyf(format string, args ...any) *Error { return New(Busy, format, args...) }

// Deniedf reports a caller who may not.
func Deniedf(format string, args ...any) *Error { return New(Denied, format, args...) }

// Internalf reports a fault of strata or of the host below it.
func Internalf(format string, args ...any) *Error { return New(Internal, format, args...) }

// Wrap puts "doing" before err's message and keeps its kind, field and hint.
// It returns nil for a nil err. Several faults joined stay several, each with "doing".
func Wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	doing := fmt.Sprintf(format, args...)
	var all []error
	for _, e := range All(err) {
		all = append(all, &Error{Kind: e.Kind, Message: doing + ": " + e.Message, Field: e.Field, Hint: e.Hint, cause: e})
	}
	return Join(all...)
}

// KindOf returns the kind of err: its first fault's, Busy where a deadline
// passed, else Internal.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Busy
	}
	return Internal
}

// Is tells whether err is a fault of the given kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// Join returns nil where every err is nil, the fault itself where there is
// one, and otherwise an error that All takes apart again.
func Join(errs ...error) error {
	var kept []error
	for _, err := range errs {
		if err != nil {
			kept = append(kept, err)
		}
	}
	switch len(kept) {
	case 0:
		return nil
	case 1:
		return kept[0]
	}
	return joined(kept)
}

type joined []error

func (j joined) Unwrap() []error { return j }

func (j joined) Error() string {
	var b strings.Builder
	for i, err := range j {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// faults are what All comes to in an error: one fault, also one that says what several
// mean, or several joined.
type faults interface {
	error
	all() []*Error
}

func (e *Error) all() []*Error { return []*Error{e} }

func (j joined) all() []*Error {
	var all []*Error
	for _, one := range j {
		all = append(all, All(one)...)
	}
	return all
}

// All takes err apart into its faults, in order, each with the words that err puts around
// them. An error of another package becomes one fault with KindOf's kind. It returns nil
// for a nil err.
func All(err error) []*Error {
	if err == nil {
		return nil
	}
	var inner faults
	if !errors.As(err, &inner) {
		return []*Error{{Kind: KindOf(err), Message: err.Error(), cause: err}}
	}
	all := inner.all()
	before, after, found := strings.Cut(err.Error(), inner.Error())
	switch {
	case !found: // err tells it in words of its own
		return []*Error{{Kind: all[0].Kind, Message: err.Error(), Field: all[0].Field, Hint: all[0].Hint, cause: err}}
	case before+after == "":
		return all
	}
	around := make([]*Error, len(all))
	for i, e := range all {
		around[i] = &Error{Kind: e.Kind, Message: before + e.Message + after, Field: e.Field, Hint: e.Hint, cause: err}
	}
	return around
}
