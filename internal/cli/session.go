package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
)

// defaultDetachKeys leave a session with a terminal. Source: docker's default.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// forwarded are the signals that an attached program gets in this one's place.
var forwarded = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}

// session joins this process's streams with those of a program inside.
type session struct {
	tty    bool   // the program has a terminal
	input  bool   // standard input goes to it
	detach string // keys that leave it; "" for the default, "none" for no keys
	ends   bool   // a signal ends it: there is no program that could get one
}

// join runs open with the streams of this process, and gives the terminal back
// as it was whatever happens.
func (a *app) join(ctx context.Context, s session, open func(context.Context, client.Streams) (api.Exit, error)) (api.Exit, error) {
	keys, err := parseKeys(s.detach)
	if err != nil {
		return api.Exit{}, err
	}
	fd := int(a.in.Fd())
	local := term.IsTerminal(fd)
	if s.tty && s.input && !local {
		return api.Exit{}, fault.Invalidf("standard input is no terminal").At("tty").Help("leave out -t, or run this from a terminal")
	}
	resize, signals := make(chan client.Size, 1), make(chan syscall.Signal, 8)
	streams := client.Streams{Out: &outlet{w: a.out, signals: signals}, Err: &outlet{w: a.err, signals: signals}}
	if s.input {
		streams.In = a.in
	}
	pipes := make(chan os.Signal, 1) // caught, so that a pipe that nobody reads is an error here
	signal.Notify(pipes, unix.SIGPIPE)
	defer signal.Stop(pipes)
	streams.Resize, streams.Signals = resize, signals
	if s.tty {
		streams.Size = sizeOf(a.out)
		sendSize(resize, streams.Size) // a program that ran before has its size from another
	}
	signalled := []os.Signal{unix.SIGWINCH}
	if !s.ends { // from here on signals are the program's
		ctx, signalled = context.WithoutCancel(ctx), append(signalled, forwarded...)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.tty && s.input {
		streams.In = &detachable{r: a.in, keys: keys}
	}
	restore := func() {}
	defer func() { restore() }()
	joined := make(chan struct{})
	streams.Joined = func() {
		if s.tty && s.input {
			if old, err := term.MakeRaw(fd); err == nil {
				restore = func() { _ = term.Restore(fd, old) }
			}
		}
		close(joined)
	}
	caught := make(chan os.Signal, 8)
	signal.Notify(caught, signalled...)
	defer signal.Stop(caught)
	go relay(ctx, cancel, relayed{caught: caught, joined: joined, signals: signals, resized: func() {
		if s.tty {
			sendSize(resize, sizeOf(a.out))
		}
	}})
	return open(ctx, streams)
}

// outlet writes what the program says. Where nobody reads it any more the
// program gets SIGPIPE, as it would without strata, and what it still says is
// dropped.
type outlet struct {
	w       io.Writer
	signals chan<- syscall.Signal
	shut    bool
}

// Write implements io.Writer.
func (o *outlet) Write(p []byte) (int, error) {
	if o.shut {
		return len(p), nil
	}
	n, err := o.w.Write(p)
	if !errors.Is(err, unix.EPIPE) {
		return n, err
	}
	o.shut = true
	select {
	case o.signals <- unix.SIGPIPE:
	default: // as many signals are on their way to it
	}
	return len(p), nil
}

// relayed is what relay stands between.
type relayed struct {
	caught  <-chan os.Signal
	joined  <-chan struct{}
	signals chan<- syscall.Signal
	resized func()
}

// relay hands signals on until ctx ends. One that comes before the session has
// begun waits for it; a second one then gives the session up.
func relay(ctx context.Context, giveUp func(), r relayed) {
	var early []syscall.Signal
	hand := func(sig syscall.Signal) {
		select {
		case r.signals <- sig:
		case <-ctx.Done():
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.joined:
			r.joined = nil
			for _, sig := range early {
				hand(sig)
			}
		case one := <-r.caught:
			switch {
			case one == unix.SIGWINCH && r.joined == nil:
				r.resized()
			case one == unix.SIGWINCH:
			case r.joined == nil:
				hand(one.(syscall.Signal))
			default:
				if early = append(early, one.(syscall.Signal)); len(early) > 1 {
					giveUp()
				}
			}
		}
	}
}

// sizeOf returns the size of the terminal that out, or else standard input, is;
// zero where neither is one.
func sizeOf(out io.Writer) client.Size {
	for _, f := range []any{out, os.Stdin} {
		file, ok := f.(described)
		if !ok {
			continue
		}
		cols, rows, err := term.GetSize(int(file.Fd()))
		if err == nil && rows > 0 && cols > 0 && rows <= 65535 && cols <= 65535 {
			return client.Size{Rows: uint16(rows), Cols: uint16(cols)}
		}
	}
	return client.Size{}
}

// sendSize announces a size; one not yet sent is replaced.
func sendSize(to chan client.Size, size client.Size) {
	if size == (client.Size{}) {
		return
	}
	select {
	case <-to:
	default:
	}
	to <- size
}

// parseKeys reads keys such as "ctrl-p,ctrl-q" or "ctrl-]" into the bytes that a
// terminal sends for them. Kinds: Invalid.
func parseKeys(text string) ([]byte, error) {
	switch text {
	case "":
		text = defaultDetachKeys
	case "none":
		return nil, nil
	}
	var keys []byte
	for one := range strings.SplitSeq(text, ",") {
		c, ctrl := strings.CutPrefix(strings.ToLower(one), "ctrl-")
		switch {
		case ctrl && len(c) == 1 && c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case ctrl && len(c) == 1 && strings.ContainsAny(c, "@[\\]^_"):
			keys = append(keys, c[0]-'@')
		case !ctrl && len(one) == 1 && one[0] > ' ' && one[0] < 0x7f:
			keys = append(keys, one[0])
		default:
			return nil, fault.Invalidf("%q is not a key", one).At("detach-keys").Help("write keys such as ctrl-p,ctrl-q, or none")
		}
	}
	return keys, nil
}

// detachable reads r and ends with client.ErrDetached after the keys were
// typed in a row. Keys that turn out to be no such row are handed on.
type detachable struct {
	r       io.Reader
	keys    []byte
	matched int    // of keys, typed and held back
	pending []byte // to be handed on
	left    bool
}

// Read implements io.Reader.
func (d *detachable) Read(p []byte) (int, error) {
	for len(d.pending) == 0 {
		if d.left {
			return 0, client.ErrDetached
		}
		buf := make([]byte, len(p))
		n, err := d.r.Read(buf)
		d.take(buf[:n])
		if err != nil && len(d.pending) == 0 {
			return 0, err
		}
	}
	n := copy(p, d.pending)
	d.pending = d.pending[n:]
	return n, nil
}

func (d *detachable) take(typed []byte) {
	for _, c := range typed {
		if len(d.keys) == 0 || d.left {
			if !d.left {
				d.pending = append(d.pending, c)
			}
			continue
		}
		if c == d.keys[d.matched] {
			if d.matched++; d.matched == len(d.keys) {
				d.left = true
			}
			continue
		}
		d.pending = append(d.pending, d.keys[:d.matched]...)
		d.matched = 0
		if c == d.keys[0] {
			d.matched = 1
			if len(d.keys) == 1 {
				d.left = true
			}
		} else {
			d.pending = append(d.pending, c)
		}
	}
}

// ended gives a program's end this command's exit status.
func ended(e api.Exit) error {
	if e.Status == 0 {
		return nil
	}
	return exit{status: e.Status}
}

// signalText checks a signal's name or number early, for a clear message.
func signalText(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > 64 {
			return "", fault.Invalidf("%d is not a signal", n).At("signal").Help("write a number from 1 to 64, or a name such as TERM")
		}
		return text, nil
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if unix.SignalNum("SIG"+name) == 0 && !strings.HasPrefix(name, "RT") {
		return "", fault.Invalidf("%q is not a signal", text).At("signal").Help("write a name such as TERM, or a number from 1 to 64")
	}
	return name, nil
}
