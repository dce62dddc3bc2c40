package virtual

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/logfile"
)

func TestWhatTheConsoleSaidLastIsShownOfThisRun(t *testing.T) {
	dir := t.TempDir()
	w := logfile.Writer{Dir: dir, Size: 1 << 20, Files: 2}
	w.Append(logfile.Stdout, time.Now().Add(-time.Hour).UnixNano(), []byte("an earlier run\n"))
	since := time.Now()
	busy := fault.Busyf("no answer").Help("wait")
	if err := silent(busy, dir, since); err.Error() != "no answer; the console is empty" {
		t.Errorf("with an empty console: %v", err)
	}
	w.Append(logfile.Stdout, since.Add(time.Second).UnixNano(), []byte(strings.Repeat("much\n", 10000)+"\x1b[2Jlast\xff words\r\n"))
	w.Close()
	err := silent(busy, dir, since)
	words := err.Error()
	if e := fault.All(err)[0]; e.Kind != fault.Busy || e.Hint != "wait" || len(words) > shownBytes+100 {
		t.Errorf("%s, %q, %d bytes", e.Kind, e.Hint, len(words))
	}
	if !strings.HasPrefix(words, "no answer; the console's last lines:\nmuch\n") || !strings.HasSuffix(words, "\n?[2Jlast? words") || strings.Contains(words, "earlier") {
		t.Errorf("%q", words)
	}
	if n := strings.Count(words, "\n"); n > shownLines {
		t.Errorf("%d lines are shown", n)
	}
	for _, other := range []error{fault.Busyf("x").At("disk"), fault.Missingf("x"), errors.New("x")} {
		if got := silent(other, dir, since); got != other {
			t.Errorf("%v became %v", other, got)
		}
	}
}
