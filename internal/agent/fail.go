package agent

import (
	"errors"
	"syscall"

	"github.com/strata-project/strata/internal/keeper/wire"
)

// The kinds of failure, as package fault spells them.
const (
	missing  = "missing"  // main program, user or group is not there
	unable   = "unable"   // it is there and cannot be executed
	invalid  = "invalid"  // it is malformed
	internal = "internal" // strata, or the host below it
)

// failure is a wire.Failure as an error.
type failure struct{ wire.Failure }

func (f *failure) Error() string { return f.Message }

func fail(kind, field, message string) error {
	return &failure{wire.Failure{Kind: kind, Field: field, Message: message}}
}

// wrap puts "doing" before err's message and keeps kind and field.
func wrap(err error, doing string) error {
	if err == nil {
		return nil
	}
	f := *failureOf(err)
	f.Message = doing + ": " + f.Message
	return &failure{f}
}

// failureOf returns what err says on the wire.
func failureOf(err error) *wire.Failure {
	var f *failure
	if errors.As(err, &f) {
		return &f.Failure
	}
	return &wire.Failure{Kind: internal, Message: words(err)}
}

// words names an errno as Go does, and an unknown error as itself.
func words(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
