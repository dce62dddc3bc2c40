package keeper

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/logfile"
	"github.com/strata-project/strata/internal/keeper/wire"
)

func TestOOMNeedsTheCounterAndTheKill(t *testing.T) {
	for what, row := range map[string]struct {
		after string
		end   string
		want  bool
	}{
		"counted and killed":          {"oom_kill 1", "kill -KILL $$", true},
		"killed but not counted":      {"oom_kill 0", "kill -KILL $$", false},
		"counted but ended by itself": {"oom_kill 1", "exit 137", false},
	} {
		t.Run(what, func(t *testing.T) {
			s := newSpec(t, "sh")
			counter := filepath.Join(filepath.Dir(s.Socket), "memory.events")
			os.WriteFile(counter, []byte("low 0\noom_kill 0\n"), 0o600)
			s.OOM = wire.Counter{File: counter, Key: "oom_kill"}
			s.Payload.Args = append(s.Payload.Args, "printf 'low 0\\n"+row.after+"\\n' > "+counter+"; "+row.end)
			c, conn := pipe(t)
			r := launch(t, s, conn)
			if _, _, e := c.rest(); e.OOM != row.want || e.Status != 137 {
				t.Errorf("%+v", e)
			}
			if e := r.end(); e.OOM != row.want {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestOutputIsLoggedAsItCame(t *testing.T) {
	s := newSpec(t, "sh", "echo out; echo err >&2; head -c 100000 /dev/zero; exit 0")
	r := launch(t, s, nil)
	r.end()
	var zero, text int
	err := logfile.Read(within10(t), s.Log.Dir, logfile.Options{}, func(rec logfile.Record) error {
		if rec.Stream == logfile.Stderr {
			text += len(rec.Data)
		} else {
			zero += len(rec.Data)
		}
		return nil
	})
	if err != nil || zero != 100004 || text != 4 {
		t.Errorf("%d and %d bytes, %v", zero, text, err)
	}
}

func TestFoldersThatAreGoneCostNeitherOutputNorEnd(t *testing.T) {
	s := newSpec(t, "sh", "echo seen; read x; exit 6")
	s.Stdin = true
	s.Log.Dir += "/gone"
	s.ExitFile = s.Log.Dir + "/exit.json"
	c, conn := pipe(t)
	r := launch(t, s, conn)
	c.until("seen\n")
	if st, err := r.Status(within10(t)); err != nil || st.LogLost != 5 {
		t.Errorf("%+v %v", st, err)
	}
	ended := make(chan wire.ExitRecord, 1)
	up := make(chan struct{})
	go func() {
		e, err := r.Watch(within10(t), at(up, isReady))
		if err != nil {
			t.Error(err)
		}
		ended <- e
	}()
	<-up
	c.conn.Write([]byte{1, 0, 0, 0, 1, '\n'})
	if e := <-ended; e.Status != 6 {
		t.Errorf("%+v", e)
	}
}

func TestConnectionThatSaysNothingIsDropped(t *testing.T) {
	t.Parallel()
	r := launch(t, newSpec(t, "sh", "sleep 100"), nil)
	before := time.Now()
	conn, err := dial(r.spec.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := readPacket(within10(t), conn); err == nil || time.Since(before) < 4*time.Second {
		t.Errorf("it ended after %v: %v", time.Since(before), err)
	}
	for _, r2 := range []wire.Request{{Op: "nonsense"}, {Op: "signal", Signal: 65}, {Op: "attach"}} {
		if _, err := r.ask(within10(t), r2, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", r2, err)
		}
	}
	if err := r.Attach(within10(t), os.Stdin); !fault.Is(err, fault.Invalid) {
		t.Errorf("a file as client: %v", err)
	}
}

func TestExecThatHangsInTheAgentHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := launch(t, inside(t, newSpec(t, "sh", "sleep 100")), nil)
	hang := make(chan error, 1)
	go func() {
		_, err := r.exec(wire.Exec{Process: wire.Process{Args: []string{"hang"}}})
		hang <- err
	}()
	c, err := r.exec(shell("exit 2"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, e := c.rest(); e.Status != 2 {
		t.Errorf("%+v", e)
	}
	r.Signal(within10(t), syscall.SIGKILL)
	<-hang // an agent that is killed looks like a program that is; but it is answered
	wait(t, r.gone)
}
