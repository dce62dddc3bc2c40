package servertest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	pathpkg "path"
	"strconv"
	"strings"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/api/stream"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
)

// program is one run of one of the words that this package knows.
type program struct {
	command []string
	spec    api.Spec
	conn    net.Conn // nil: nobody is attached
	signals chan byte
	log     func(stream string, data []byte)
}

// start checks a command as the real thing would, and takes a duplicate of conn.
func start(command []string, conn *os.File) (*program, error) {
	p := &program{command: command, signals: make(chan byte, 8), log: func(string, []byte) {}}
	switch command[0] {
	case "missing":
		return nil, fault.Missingf("the program %q was not found", command[0]).At("command")
	case "noexec":
		return nil, fault.Unablef("the program %q cannot be executed", command[0]).At("command")
	}
	if conn != nil {
		c, err := net.FileConn(conn)
		if err != nil {
			return nil, err
		}
		p.conn = c
	}
	return p, nil
}

func (p *program) write(t stream.Type, text string) {
	name := "stdout"
	if t == stream.Stderr {
		name = "stderr"
	}
	p.log(name, []byte(text))
	if p.conn != nil {
		_ = stream.Write(p.conn, t, []byte(text))
	}
}

// frames reads what the client sends until it is gone.
func (p *program) frames(input chan<- []byte, sizes chan<- string) {
	defer close(input)
	if p.conn == nil {
		return
	}
	closed := false
	for r := stream.NewReader(p.conn); ; {
		t, data, err := r.Next()
		if err != nil {
			return
		}
		switch t {
		case stream.Stdin:
			if !closed {
				input <- append([]byte(nil), data...)
			}
		case stream.CloseStdin:
			closed = true
			input <- nil
		case stream.Resize:
			rows, cols, _ := stream.ParseResize(data)
			select {
			case sizes <- fmt.Sprintf("%d %d", rows, cols):
			default:
			}
		case stream.Signal:
			p.signals <- data[0]
		}
	}
}

// run acts the program out and returns how it ended.
func (p *program) run() (end stream.Ended) {
	input, sizes := make(chan []byte, 16), make(chan string, 1)
	go p.frames(input, sizes)
	words := strings.Join(p.command[1:], " ")
	switch p.command[0] {
	case "echo":
		p.write(stream.Stdout, words+"\n")
	case "err":
		p.write(stream.Stderr, words+"\n")
	case "exit":
		n, _ := strconv.Atoi(words)
		end.Status = uint8(n)
	case "spec":
		text, _ := json.Marshal(p.spec)
		p.write(stream.Stdout, string(text)+"\n")
	case "cat":
		for data := range input {
			if data == nil {
				break
			}
			p.write(stream.Stdout, string(data))
		}
	case "size":
		select {
		case size := <-sizes:
			p.write(stream.Stdout, size+"\n")
		case <-time.After(5 * time.Second):
			end.Status = 1
		}
	case "sleep":
		p.write(stream.Stdout, "up\n")
		sig := <-p.signals
		p.write(stream.Stdout, fmt.Sprintf("signal %d\n", sig))
		end = stream.Ended{Status: 128 + sig, Signal: sig}
	}
	if p.conn != nil {
		if p.command[0] != "lost" {
			_ = stream.Write(p.conn, stream.Exit, stream.ExitPayload(end))
		}
		_ = p.conn.Close()
	}
	return end
}

// Start implements server.Lifecycle.
func (e *Engine) Start(_ context.Context, ref string, first *engine.Session) error {
	r, err := e.get(ref)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.env.State == api.Running {
		return fault.Conflictf("%s is running already", r.env.Name)
	}
	var conn *os.File
	if first != nil {
		conn = first.Conn
	}
	p, err := start(r.env.Command, conn)
	if err != nil {
		r.env.State, r.env.LastFailure = api.Stopped, err.Error()
		return err
	}
	p.spec = r.env.Spec
	p.log = func(name string, data []byte) {
		e.mu.Lock()
		defer e.mu.Unlock()
		r.logs = append(r.logs, api.LogLine{Time: time.Unix(1700000000, 0).UTC(), Stream: name, Data: data})
	}
	r.env.State, r.env.Ready, r.env.PID, r.env.Exit = api.Running, true, 4242, nil
	r.input, r.done = p.signals, make(chan struct{})
	e.publish(api.Event{Type: "environment", Action: "start", ID: r.env.ID, Name: r.env.Name})
	go func() {
		end := p.run()
		e.mu.Lock()
		defer e.mu.Unlock()
		r.env.State, r.env.Ready, r.env.PID = api.Stopped, false, 0
		r.env.Exit = &api.Exit{Status: int(end.Status), Signal: int(end.Signal), At: time.Now()}
		e.publish(api.Event{Type: "environment", Action: "die", ID: r.env.ID, Name: r.env.Name})
		if r.env.Spec.AutoRemove {
			e.vanish(r)
		}
		close(r.done)
	}()
	return nil
}

// signal hands a signal to a running program.
func (e *Engine) signal(ref string, sig byte) (*row, error) {
	r, err := e.get(ref)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.env.State != api.Running {
		return r, fault.Conflictf("%s is %s, not running", r.env.Name, r.env.State)
	}
	r.input <- sig
	return r, nil
}

// Stop implements server.Lifecycle.
func (e *Engine) Stop(_ context.Context, ref string, _ engine.StopOptions) error {
	r, err := e.signal(ref, 15)
	if fault.Is(err, fault.Conflict) {
		return nil
	}
	if err == nil {
		<-r.done
	}
	return err
}

// Kill implements server.Lifecycle.
func (e *Engine) Kill(_ context.Context, ref, signal string) error {
	n := byte(9)
	if signal == "HUP" {
		n = 1
	}
	_, err := e.signal(ref, n)
	return err
}

// Restart implements server.Lifecycle.
func (e *Engine) Restart(ctx context.Context, ref string, o engine.StopOptions) error {
	if err := e.Stop(ctx, ref, o); err != nil {
		return err
	}
	return e.Start(ctx, ref, nil)
}

// Reclaim implements server.Lifecycle.
func (e *Engine) Reclaim(_ context.Context, ref string) (api.Reclaimed, error) {
	r, err := e.get(ref)
	if err != nil {
		return api.Reclaimed{}, err
	}
	return api.Reclaimed{ID: r.env.ID, Environment: r.env.Name, Stratum: r.env.Stratum, Before: 3 << 20, After: 1 << 20, Freed: 2 << 20, By: []string{"page cache"}}, nil
}

// Pause implements server.Lifecycle.
func (e *Engine) Pause(_ context.Context, ref string) error {
	return e.turn(ref, api.Running, api.Paused)
}

// Resume implements server.Lifecycle.
func (e *Engine) Resume(_ context.Context, ref string) error {
	return e.turn(ref, api.Paused, api.Running)
}

// Suspend implements server.Lifecycle.
func (e *Engine) Suspend(_ context.Context, ref string) error {
	return e.turn(ref, api.Running, api.Suspended)
}

// Reset implements server.Lifecycle.
func (e *Engine) Reset(_ context.Context, ref string) error {
	return e.turn(ref, api.Running, api.Running)
}

// Interrupt implements server.Lifecycle.
func (e *Engine) Interrupt(_ context.Context, ref string) error {
	return e.turn(ref, api.Running, api.Running)
}

// Insert implements server.Drives.
func (e *Engine) Insert(_ context.Context, ref, _ string) error {
	return e.turn(ref, api.Running, api.Running)
}

// InstallAgent implements server.Drives.
func (e *Engine) InstallAgent(_ context.Context, ref string, _ bool) (api.AgentInstalled, error) {
	return api.AgentInstalled{By: "cd", Command: "true"}, e.turn(ref, api.Running, api.Running)
}

// Eject implements server.Drives.
func (e *Engine) Eject(_ context.Context, ref string) error {
	return e.turn(ref, api.Running, api.Running)
}

func (e *Engine) turn(ref string, from, to api.State) error {
	r, err := e.get(ref)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.env.State != from {
		return fault.Conflictf("%s is %s, not %s", r.env.Name, r.env.State, from)
	}
	r.env.State = to
	return nil
}

// Wait implements server.Lifecycle.
func (e *Engine) Wait(ctx context.Context, ref, condition string) (api.Exit, error) {
	r, err := e.get(ref)
	if err != nil {
		return api.Exit{}, err
	}
	e.mu.Lock()
	done := r.done
	e.mu.Unlock()
	if condition == "removed" {
		done = r.gone
	}
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return api.Exit{}, ctx.Err()
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.env.Exit == nil {
		return api.Exit{}, nil
	}
	return *r.env.Exit, nil
}

// Attach implements server.Streams: it tells who attached and ends.
func (e *Engine) Attach(_ context.Context, ref string, conn *os.File) error {
	if _, err := e.get(ref); err != nil {
		return err
	}
	return act([]string{"echo", "attached to", ref}, conn)
}

// Console implements server.Streams as Attach does.
func (e *Engine) Console(_ context.Context, ref string, conn *os.File) error {
	if _, err := e.get(ref); err != nil {
		return err
	}
	return act([]string{"echo", "console of", ref}, conn)
}

// Exec implements server.Streams.
func (e *Engine) Exec(ctx context.Context, ref string, proc api.Process, conn *os.File) error {
	env, err := e.Get(ctx, ref)
	if err != nil {
		return err
	}
	if env.State != api.Running {
		return fault.Conflictf("%s is %s, not running", env.Name, env.State).Help("start it first")
	}
	return act(proc.Command, conn)
}

func act(command []string, conn *os.File) error {
	p, err := start(command, conn)
	if err != nil {
		return err
	}
	go p.run()
	return nil
}

// Logs implements server.Streams; those of an environment called broken break off.
func (e *Engine) Logs(ctx context.Context, ref string, o engine.LogOptions, emit func(api.LogLine) error) error {
	r, err := e.get(ref)
	if err != nil {
		return err
	}
	e.mu.Lock()
	lines, done := r.logs, r.done
	e.mu.Unlock()
	if o.Tail >= 0 {
		lines = lines[max(0, len(lines)-o.Tail):]
	}
	n := len(lines)
	for _, l := range lines {
		if err := emit(l); err != nil {
			return err
		}
	}
	if ref == "broken" {
		return fault.Internalf("the log cannot be read on")
	}
	if o.Follow && done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return nil
		}
		e.mu.Lock()
		lines = r.logs[n:]
		e.mu.Unlock()
		for _, l := range lines {
			if err := emit(l); err != nil {
				return err
			}
		}
	}
	return nil
}

// Stats implements server.Streams.
func (e *Engine) Stats(ctx context.Context, ref string) (api.Stats, error) {
	env, err := e.Get(ctx, ref)
	return api.Stats{ID: env.ID, Name: env.Name, Time: time.Now(), Memory: 1 << 20, MemoryPeak: 2 << 20, PIDs: 1}, err
}

// CopyOut implements server.Files: what was copied in comes out, and /file, of /broken only the beginning.
func (e *Engine) CopyOut(_ context.Context, ref, path string, w io.Writer) error {
	if _, err := e.get(ref); err != nil {
		return err
	}
	switch path {
	case "/broken":
		return e.breakOff(w)
	case "/file":
		out := tar.NewWriter(w)
		if err := out.WriteHeader(&tar.Header{Name: "file", Size: 5, Mode: 0o644}); err != nil {
			return err
		}
		if _, err := out.Write([]byte("file\n")); err != nil {
			return err
		}
		return out.Close()
	}
	e.mu.Lock()
	data, ok := e.files[ref+":"+path]
	e.mu.Unlock()
	if !ok {
		return fault.Missingf("there is no %s in %s", path, ref).At("path")
	}
	out := tar.NewWriter(w)
	for in := tar.NewReader(bytes.NewReader(data)); ; {
		head, err := in.Next()
		if err != nil {
			return out.Close()
		}
		head.Name = pathpkg.Join(pathpkg.Base(path), head.Name)
		if err := out.WriteHeader(head); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

// breakOff writes a tar that is not whole, and fails, by a panic where one is set.
func (e *Engine) breakOff(w io.Writer) error {
	out := tar.NewWriter(w)
	if err := out.WriteHeader(&tar.Header{Name: "broken/a", Mode: 0o644, Size: 4}); err != nil {
		return err
	}
	if _, err := io.WriteString(out, "half"); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if e.Panic != nil {
		panic(e.Panic)
	}
	return fault.Internalf("the rest cannot be read")
}

// CopyIn implements server.Files.
func (e *Engine) CopyIn(_ context.Context, ref, path string, r io.Reader) error {
	if _, err := e.get(ref); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return fault.Invalidf("the tar broke off: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.files[ref+":"+path] = data
	return nil
}

// StatPath implements server.Files: /, /folder and /broken are folders, /file is a file,
// /link points at /folder.
func (e *Engine) StatPath(_ context.Context, ref, path string) (api.PathStat, error) {
	if _, err := e.get(ref); err != nil {
		return api.PathStat{}, err
	}
	e.mu.Lock()
	_, copied := e.files[ref+":"+path]
	e.mu.Unlock()
	switch {
	case path == "/" || path == "/folder" || path == "/broken" || copied:
		return api.PathStat{Name: path, Type: "folder", Mode: 0o755}, nil
	case path == "/file":
		return api.PathStat{Name: "file", Type: "file", Mode: 0o644, Size: 5}, nil
	case path == "/link":
		return api.PathStat{Name: "link", Type: "link", Link: "folder"}, nil
	}
	return api.PathStat{}, fault.Missingf("there is no %s in %s", path, ref).At("path")
}
