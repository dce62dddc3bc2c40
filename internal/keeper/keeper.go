package keeper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/keeper/keep"
	"github.com/strata-project/strata/internal/keeper/wire"
)

// ErrLost means that the keeper went without telling how its run ended. The exit
// record may be there all the same (ReadExit); where it is not, the keeper crashed.
var ErrLost = errors.New("the keeper was lost")

// Keeper is a running keeper.
type Keeper struct {
	PID       int // the payload's first process
	KeeperPID int

	socket string
}

// Open finds the keeper that listens on socket and has written statusFile, where its disk was
// not full then. Kinds: Missing where it does not run any more.
func Open(ctx context.Context, socket, statusFile string) (*Keeper, error) {
	k := &Keeper{socket: socket}
	st, err := readStatus(statusFile)
	if err != nil {
		asked, askErr := k.Status(ctx)
		if askErr != nil || !asked.Running {
			return nil, err
		}
		st = asked
	}
	if !alive(st) {
		return nil, fault.Missingf("keeper %d runs no more", st.KeeperPID)
	}
	k.PID, k.KeeperPID = st.PID, st.KeeperPID
	if _, err := k.Status(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// readStatus reads what a keeper wrote when its main program began. Kinds: Missing.
func readStatus(file string) (st wire.Status, err error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return st, fault.Missingf("there is no keeper: %w", err)
	}
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		return st, fault.Internalf("read a keeper's status %s: %w", file, err)
	}
	return st, nil
}

// alive tells whether the keeper's pid is still the keeper's.
func alive(st wire.Status) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(st.KeeperPID) + "/stat")
	return err == nil && st.KeeperPID > 0 && keep.StartTime(b) == st.StartTime
}

// Status asks the keeper for its state. Kinds: Missing where it listens no more.
func (k *Keeper) Status(ctx context.Context) (wire.Status, error) {
	r, err := k.ask(ctx, wire.Request{Op: "status"}, nil)
	if err != nil {
		return wire.Status{}, err
	}
	return *r.Status, nil
}

// Watch waits for the end of the run and returns how it ended. news is called with how
// things stand, and again whenever Ready, Told or Stalled has changed. An error that is
// ErrLost means that the keeper is gone.
func (k *Keeper) Watch(ctx context.Context, news func(wire.Status)) (wire.ExitRecord, error) {
	conn, err := dial(k.socket)
	if err != nil {
		return wire.ExitRecord{}, errors.Join(ErrLost, err)
	}
	defer conn.Close()
	if err := writePacket(ctx, conn, wire.Request{Op: "watch"}, nil); err != nil {
		return wire.ExitRecord{}, errors.Join(ErrLost, err)
	}
	for {
		b, err := readPacket(ctx, conn)
		if ctx.Err() != nil {
			return wire.ExitRecord{}, ctx.Err()
		}
		var r wire.Reply
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err == nil && r.Status == nil {
			err = failure(r.Fault)
		}
		if err != nil {
			return wire.ExitRecord{}, errors.Join(ErrLost, err)
		}
		news(*r.Status)
		if r.Status.Ended != nil {
			return *r.Status.Ended, nil
		}
	}
}

// Attach makes conn, a stream socket, a client of the main program; the caller
// keeps its own descriptor. Kinds: Conflict where the program has ended, Busy.
func (k *Keeper) Attach(ctx context.Context, conn *os.File) error {
	return k.join(ctx, wire.Request{Op: "attach"}, conn)
}

// Console makes conn, a stream socket, a client of the machine's console; the
// caller keeps its own descriptor. Kinds: Conflict, Busy, Unable where there is none.
func (k *Keeper) Console(ctx context.Context, conn *os.File) error {
	return k.join(ctx, wire.Request{Op: "console"}, conn)
}

// Exec starts a further program with conn, a stream socket, as its client, and
// returns once it runs. Kinds: those of the agent's failure, Invalid, Conflict, Busy.
func (k *Keeper) Exec(ctx context.Context, e wire.Exec, conn *os.File) error {
	return k.join(ctx, wire.Request{Op: "exec", Exec: &e}, conn)
}

// join hands a client over. Where the keeper has ended, what it kept has.
func (k *Keeper) join(ctx context.Context, r wire.Request, conn *os.File) error {
	_, err := k.ask(ctx, r, conn)
	for _, gone := range []error{fs.ErrNotExist, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.EOF} {
		if errors.Is(err, gone) {
			return fault.Conflictf("the environment has ended")
		}
	}
	return err
}

// Signal sends sig to the payload's first process.
func (k *Keeper) Signal(ctx context.Context, sig syscall.Signal) error {
	_, err := k.ask(ctx, wire.Request{Op: "signal", Signal: int(sig)}, nil)
	return err
}

// Drop ends a machine whose main program has ended, without its disk's being written out.
// Kinds: Conflict where that program has not.
func (k *Keeper) Drop(ctx context.Context) error {
	_, err := k.ask(ctx, wire.Request{Op: "drop"}, nil)
	return err
}

// ask sends one request and waits for its answer.
func (k *Keeper) ask(ctx context.Context, r wire.Request, file *os.File) (wire.Reply, error) {
	conn, err := dial(k.socket)
	if err != nil {
		return wire.Reply{}, fault.Missingf("the keeper listens no more: %w", err)
	}
	defer conn.Close()
	if err := writePacket(ctx, conn, r, file); err != nil {
		return wire.Reply{}, err
	}
	b, err := readPacket(ctx, conn)
	if err != nil {
		return wire.Reply{}, err
	}
	var reply wire.Reply
	if err := json.Unmarshal(b, &reply); err != nil {
		return wire.Reply{}, fault.Internalf("read the keeper's answer: %w", err)
	}
	if reply.Fault != nil || reply.Status == nil {
		return wire.Reply{}, failure(reply.Fault)
	}
	return reply, nil
}

// ReadExit reads an exit record; nil without an error where there is none.
func ReadExit(file string) (*wire.ExitRecord, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.Internalf("read the exit record: %w", err)
	}
	var e wire.ExitRecord
	if err := json.Unmarshal(bytes.TrimSpace(b), &e); err != nil {
		return nil, fault.Internalf("read the exit record %s: %w", filepath.Base(file), err)
	}
	return &e, nil
}
