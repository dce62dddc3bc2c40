package keep

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/strata-project/strata/internal/keeper/wire"
	"golang.org/x/sys/unix"
)

// exitRecord turns a wait status, which may be made up, into a record.
func (k *keeper) exitRecord(ws unix.WaitStatus) wire.ExitRecord {
	e := statusOf(ws)
	// An init that has powered off or halted its pid namespace is shown as ended by
	// SIGINT, and one that wants to be started again by SIGHUP. Source:
	// kernel/pid_namespace.c, reboot_pid_ns.
	if k.spec.System && e.Signal == int(unix.SIGINT) {
		return wire.ExitRecord{}
	}
	if e.Signal == int(unix.SIGKILL) {
		n, ok := readCounter(k.spec.OOM)
		e.OOM = ok && n > k.oomBase
	}
	return e
}

func statusOf(ws unix.WaitStatus) wire.ExitRecord {
	if ws.Signaled() {
		sig := int(ws.Signal())
		return wire.ExitRecord{Status: (128 + sig) & 0xff, Signal: sig}
	}
	return wire.ExitRecord{Status: int(ws>>8) & 0xff}
}

// ended completes a sentence on whoever ended with ws.
func ended(ws unix.WaitStatus) string {
	if ws.Signaled() {
		return "was killed by " + describe(ws)
	}
	return "ended with " + describe(ws)
}

func describe(ws unix.WaitStatus) string {
	if e := statusOf(ws); e.Signal != 0 {
		return "signal " + strconv.Itoa(e.Signal)
	} else {
		return "exit status " + strconv.Itoa(e.Status)
	}
}

// readCounter reads the number after c.Key on its line of c.File, or the whole
// file's where there is no key.
func readCounter(c wire.Counter) (int64, bool) {
	if c.File == "" {
		return 0, false
	}
	b, err := readFile(c.File, 16<<10)
	if err != nil {
		return 0, false
	}
	return parseCounter(b, c.Key)
}

func parseCounter(b []byte, key string) (int64, bool) {
	for len(b) > 0 {
		line := b
		if i := indexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if key != "" {
			if len(line) <= len(key) || string(line[:len(key)]) != key || line[len(key)] != ' ' {
				continue
			}
			line = line[len(key)+1:]
		}
		n, err := strconv.ParseInt(string(line), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// readFile reads at most limit bytes of a small file.
func readFile(path string, limit int) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readAll(fd, limit)
}

func readAll(fd, limit int) ([]byte, error) {
	b := make([]byte, 0, min(limit, 4096))
	for len(b) < limit {
		if len(b) == cap(b) {
			grown := make([]byte, len(b), min(2*cap(b), limit))
			copy(grown, b)
			b = grown
		}
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return b, nil
		}
		b = b[:len(b)+n]
	}
	return nil, unix.EFBIG
}

// writeFile replaces a file by v as JSON. It is not synced: what is written
// speaks of processes, and does not outlive the host's run any more than they do.
func writeFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	temp := path + ".new"
	fd, err := unix.Open(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	n, err := unix.Write(fd, b)
	if err == nil && n != len(b) {
		err = unix.ENOSPC
	}
	unix.Close(fd)
	if err == nil {
		err = unix.Rename(temp, path)
	}
	if err != nil {
		unix.Unlink(temp)
	}
	return err
}

// parseMessage reads what a payload said; ok is false for what is no message.
func parseMessage(b []byte) (m wire.Message, ok bool) {
	if len(b) > wire.MaxMessage || json.Unmarshal(b, &m) != nil {
		return wire.Message{}, false
	}
	return m, true
}

// bounded cuts a failure that came from inside to what the daemon needs.
func bounded(f *wire.Failure) *wire.Failure {
	if f == nil {
		return &wire.Failure{Kind: "internal", Message: "the payload could not start, and did not say why"}
	}
	return &wire.Failure{
		Kind: printable(cut(f.Kind, 32)), Field: printable(cut(f.Field, 64)), Message: printable(cut(f.Message, 4096)), Hint: printable(cut(f.Hint, 4096)),
	}
}

// printable returns s without what a terminal would act on, as valid UTF-8.
func printable(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		switch {
		case r == utf8.RuneError, r < ' ' && r != '\n' && r != '\t', r >= 0x7f && r < 0xa0:
			b = append(b, '?')
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// internal makes a failure of the keeper's own.
func internal(doing string, err error) *wire.Failure {
	return &wire.Failure{Kind: "internal", Message: doing + ": " + err.Error()}
}
