package files

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"
	"time"

	"github.com/strata-project/strata/internal/agent/spec"
)

// Run runs one of the commands; ok is false where name is none.
func Run(name, arg string) (status int, ok bool) {
	var err error
	switch name {
	case "tar-create":
		err = Create(os.Stdout, arg)
	case "tar-extract":
		err = Extract(arg, os.Stdin)
	case "stat":
		err = stat(arg)
	default:
		return 0, false
	}
	if err != nil {
		os.Stderr.Write(append(appendFault(nil, err), '\n'))
		return 1, true
	}
	return 0, true
}

// unableError is what cannot be done inside.
type unableError string

func (e unableError) Error() string { return string(e) }

// malformedError is a tar stream that is none.
type malformedError struct{ error }

func appendFault(b []byte, err error) []byte {
	kind := "internal"
	var unable unableError
	var malformed malformedError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kind = "missing"
	case errors.As(err, &unable):
		kind = "unable"
	case errors.As(err, &malformed):
		kind = "invalid"
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR),
		errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS):
		kind = "conflict"
	}
	b = spec.AppendText(append(b, `{"kind":`...), kind)
	b = spec.AppendText(append(b, `,"message":`...), err.Error())
	return append(b, '}')
}

// stat writes what is at a path; a link is not followed.
func stat(name string) error {
	info, err := os.Lstat(name)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	b := spec.AppendText([]byte(`{"name":`), path.Base(name))
	b = spec.AppendText(append(b, `,"type":`...), kindOf(info.Mode()))
	b = strconv.AppendInt(append(b, `,"size":`...), info.Size(), 10)
	b = strconv.AppendInt(append(b, `,"mode":`...), int64(st.Mode&0o7777), 10)
	b = strconv.AppendInt(append(b, `,"uid":`...), int64(st.Uid), 10)
	b = strconv.AppendInt(append(b, `,"gid":`...), int64(st.Gid), 10)
	b = spec.AppendText(append(b, `,"mod_time":`...), info.ModTime().UTC().Format(time.RFC3339Nano))
	if info.Mode()&fs.ModeSymlink != 0 {
		link, err := os.Readlink(name)
		if err != nil {
			return err
		}
		b = spec.AppendText(append(b, `,"link":`...), link)
	}
	_, err = os.Stdout.Write(append(b, '}', '\n'))
	return err
}

// kindOf names a type as api.PathStat does.
func kindOf(m fs.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "folder"
	case m&fs.ModeSymlink != 0:
		return "link"
	case m&fs.ModeNamedPipe != 0:
		return "fifo"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}
