package engine_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/keeper/logfile"
)

func TestLogs(t *testing.T) {
	l := newLab(t)
	env := l.create(api.Spec{Name: "web"})
	dir := filepath.Join(l.dir, "state", "environments", env.ID, "log")
	l.must(os.MkdirAll(dir, 0o700))
	w := logfile.Writer{Dir: dir, Size: 1 << 20, Files: 2}
	defer w.Close()
	for i, line := range []string{"one\n", "two\n", "three\n"} {
		w.Append(logfile.Stdout+logfile.Stream(i%2), time.Unix(int64(100+i), 0).UnixNano(), []byte(line))
	}
	for want, o := range map[string]engine.LogOptions{
		"stdout:one stderr:two stdout:three": {Tail: -1},
		"stdout:three":                       {Tail: 1},
		"":                                   {},
		"stderr:two stdout:three":            {Tail: -1, Since: time.Unix(101, 0)},
		"stdout:one stderr:two":              {Tail: -1, Until: time.Unix(101, 0)},
		"stderr:two  stdout:three":           {Tail: 2, Follow: true}, // it does not run: there is nothing to follow
	} {
		var got []string
		l.must(l.Logs(t.Context(), "web", o, func(line api.LogLine) error {
			got = append(got, line.Stream+":"+strings.TrimSpace(string(line.Data)))
			return nil
		}))
		if strings.Join(got, " ") != strings.ReplaceAll(want, "  ", " ") {
			t.Errorf("%+v: %q; want %q", o, got, want)
		}
	}
}
