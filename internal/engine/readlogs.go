package engine

import (
	"context"
	"errors"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/keeper/logfile"
)

// errPast ends the reading of a log at LogOptions.Until.
var errPast = errors.New("past the end that was asked for")

// ReadLogs reads what keepers kept, with package logfile.
func ReadLogs(ctx context.Context, dir string, o LogOptions, ended <-chan struct{}, emit func(api.LogLine) error) error {
	opt := logfile.Options{Tail: o.Tail, Follow: o.Follow, End: ended}
	switch { // 0 is all to logfile, and none here
	case o.Tail < 0:
		opt.Tail = 0
	case o.Tail == 0:
		opt.Tail = -1
	}
	if !o.Since.IsZero() {
		opt.Since = o.Since.UnixNano()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.Follow && !o.Until.IsZero() {
		timer := time.AfterFunc(time.Until(o.Until), cancel)
		defer timer.Stop()
	}
	err := logfile.Read(ctx, dir, opt, func(r logfile.Record) error {
		line := api.LogLine{Time: time.Unix(0, r.Time), Stream: "stdout", Data: r.Data}
		switch r.Stream {
		case logfile.Stderr:
			line.Stream = "stderr"
		case logfile.Lost:
			line.Stream, line.Data = "stderr", []byte("[strata: "+string(r.Data)+" bytes of output could not be kept]\n")
		}
		if !o.Until.IsZero() && line.Time.After(o.Until) {
			return errPast
		}
		return emit(line)
	})
	if errors.Is(err, errPast) {
		return nil
	}
	return err
}
