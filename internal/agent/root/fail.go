package root

import (
	"errors"
	"syscall"

	"github.com/strata-project/strata/internal/keeper/wire"
)

// The kinds of failure, as package fault spells them.
const (
	Missing  = "missing"  // main program, user or group is not there
	Unable   = "unable"   // it is there and cannot be executed
	Invalid  = "invalid"  // it is malformed
	Internal = "internal" // strata, or the system below it
)

// failure is a wire.Failure as an error.
type failure struct{ wire.Failure }

func (f *failure) Error() string { return f.Message }

// Fail returns an error that says on the wire what its arguments say.
func Fail(kind, field, message string) error {
	return &failure{wire.Failure{Kind: kind, Field: field, Message: message}}
}

// Wrap puts "doing" before err's message and keeps kind and field.
func Wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	f := *FailureOf(err)
	f.Message = doing + ": " + f.Message
	return &failure{f}
}

// In names the field that err is about, where it names none itself.
func In(err error, field string) error {
	if err == nil {
		return nil
	}
	f := *FailureOf(err)
	if f.Field == "" {
		f.Field = field
	}
	return &failure{f}
}

// FailureOf returns what err says on the wire.
func FailureOf(err error) *wire.Failure {
	var f *failure
	if errors.As(err, &f) {
		return &f.Failure
	}
	return &wire.Failure{Kind: Internal, Message: Words(err)}
}

// Words names an errno as Go does, and an unknown error as itself.
func Words(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

// Again calls f until it is not interrupted by a signal.
func Again(f func() error) error {
	for {
		if err := f(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
