package guestagent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// fake is an agent of a test's own. say answers a request; "": it says nothing.
type fake struct {
	noise string // that stands in the port when somebody comes
	say   func(command string, args json.RawMessage) string
}

// serve puts f behind a socket, as QEMU does.
func (f fake) serve(t testing.TB) *Agent {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.attend(conn)
		}
	}()
	a := New(path)
	t.Cleanup(a.Close)
	return a
}

func (f fake) attend(conn net.Conn) {
	defer conn.Close()
	fmt.Fprint(conn, f.noise)
	in := bufio.NewReader(conn)
	for {
		text, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var asked struct {
			Execute   string          `json:"execute"`
			Arguments json.RawMessage `json:"arguments"`
		}
		if err := json.Unmarshal(bytes.TrimLeft(text, "\xff"), &asked); err != nil {
			fmt.Fprint(conn, `{"error":{"class":"GenericError","desc":"JSON parse error"}}`+"\n")
			continue
		}
		if asked.Execute == "guest-sync-delimited" {
			var n struct {
				ID int64 `json:"id"`
			}
			_ = json.Unmarshal(asked.Arguments, &n)
			fmt.Fprintf(conn, "\xff{\"return\": %d}\n", n.ID)
			continue
		}
		fmt.Fprint(conn, f.say(asked.Execute, asked.Arguments))
	}
}

// always answers every request alike.
func always(text string) func(string, json.RawMessage) string {
	return func(string, json.RawMessage) string { return text }
}

// ping asks an agent for nothing.
func ping(ctx context.Context, a *Agent) error {
	return a.ask(ctx, request{command: "guest-ping"}, nil)
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestWhatAnAgentSaysOfItself(t *testing.T) {
	ctx := soon(t)
	a := fake{say: func(command string, _ json.RawMessage) string {
		return map[string]string{
			"guest-info":                   `{"return": {"version": "7.2.9\u001b[2J", "supported_commands": [{"name": "guest-exec", "enabled": true, "success-response": true}, {"name": "guest-ping", "enabled": false}]}}`,
			"guest-get-osinfo":             `{"return": {"name": "Debian GNU/Linux", "pretty-name": "Debian GNU/Linux 12 (bookworm)", "id": "debian"}}`,
			"guest-network-get-interfaces": `{"return": [{"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1", "prefix": 8}]}, {"name": "eth0", "ip-addresses": [{"ip-address": "10.87.0.5", "prefix": 16}, {"ip-address": "fe80::1", "prefix": 64}, {"ip-address": "fd00::5", "prefix": 64}, {"ip-address": "\n10.0.0.1", "prefix": 8}, {"ip-address": "10.0.0.2", "prefix": 99}]}, {"name": "none"}]}`,
			"guest-ping":                   `{"return": {}}`,
			"guest-fsfreeze-freeze":        `{"return": 3}`,
		}[command] + "\r\n"
	}}.serve(t)
	info, err := a.Info(ctx)
	if err != nil || info.Version != "7.2.9?[2J" || !info.Does("guest-exec") || info.Does("guest-ping") {
		t.Errorf("info: %+v, %v", info, err)
	}
	if system, err := a.System(ctx); err != nil || system != "Debian GNU/Linux 12 (bookworm)" {
		t.Errorf("system: %q, %v", system, err)
	}
	if at, err := a.Addresses(ctx); err != nil || strings.Join(at, " ") != "10.87.0.5/16 fd00::5/64" {
		t.Errorf("addresses: %q, %v", at, err)
	}
	if err := ping(ctx, a); err != nil {
		t.Error(err)
	}
	if n, err := a.Freeze(ctx); err != nil || n != 3 {
		t.Errorf("frozen: %d, %v", n, err)
	}
}

func TestAProgramsEnd(t *testing.T) {
	ctx := soon(t)
	var asked string
	status := `{"return": {"exited": false}}`
	a := fake{say: func(command string, args json.RawMessage) string {
		if command == "guest-exec" {
			asked = string(args)
			return `{"return": {"pid": 77}}` + "\n"
		}
		return status + "\n"
	}}.serve(t)
	pid, err := a.Start(ctx, Program{Path: "sh", Args: []string{"-c", "true"}, Env: []string{"A=b"}, Input: []byte("in")})
	if want := `{"path":"sh","arg":["-c","true"],"env":["A=b"],"input-data":"aW4=","capture-output":true}`; err != nil || pid != 77 || asked != want {
		t.Errorf("start: %d, %v, %s", pid, err, asked)
	}
	for text, want := range map[string]Status{
		`{"exited": false}`: {},
		`{"exited": true, "exitcode": 3, "out-data": "b3V0", "err-data": "ZXJy"}`: {Ended: true, Code: 3, Out: []byte("out"), Err: []byte("err")},
		`{"exited": true, "signal": 9}`:                                           {Ended: true, Signal: 9},
		`{"exited": true, "exitcode": 3221225477}`:                                {Ended: true, Code: 255},
		`{"exited": true, "exitcode": -256, "signal": 1000}`:                      {Ended: true, Code: 255},
		`{"exited": true, "out-truncated": true}`:                                 {Ended: true, Truncated: true},
	} {
		status = `{"return": ` + text + `}`
		got, err := a.Status(ctx, 77)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// TestAnAnswerIsToWhatWasAsked has answers stand in the port that nobody asked for, also
// one that looks like a meeting.
func TestAnAnswerIsToWhatWasAsked(t *testing.T) {
	ctx := soon(t)
	a := fake{
		noise: "{\"return\": {\"pid\": 1}}\n\xff{\"return\": 5}\n{\"return\": {\"pid\": 2}}\n\xff\xff{\"ret" + strings.Repeat("x", 200_000),
		say:   always(`{"return": {"pid": 3}}` + "\n{\"return\": {\"pid\": 4}}\n"),
	}.serve(t)
	for range 3 {
		if pid, err := a.Start(ctx, Program{Path: "true"}); err != nil || pid != 3 {
			t.Fatalf("pid %d, %v", pid, err)
		}
	}
}

func TestWhatIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		text  string
		kind  fault.Kind
		words string
	}{
		"a command that it does not do":  {`{"error": {"class": "CommandNotFound", "desc": "x"}}`, fault.Unable, "does not do guest-exec"},
		"no JSON":                        {`what?`, fault.Unable, "not understood"},
		"neither result nor error":       {`{"timestamp": 5}`, fault.Unable, "neither"},
		"a result of another kind":       {`{"return": []}`, fault.Unable, "not understood"},
		"one that nests":                 {`{"return": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, fault.Unable, "deeply"},
		"one that is long":               {`{"return": {"pid": 1, "x": "` + strings.Repeat("x", maxLine) + `"}}`, fault.Unable, "too long"},
		"a number that no machine holds": {`{"return": {"pid": 1e99}}`, fault.Unable, "not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			a := fake{say: always(c.text + "\n")}.serve(t)
			_, err := a.Start(soon(t), Program{Path: "true"})
			if fault.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.words) {
				t.Errorf("%v", err)
			}
		})
	}
	a := fake{say: always(`{"error": {"class": "GenericError", "desc": "Failed to execute \u001b(No such file)"}}` + "\n")}.serve(t)
	_, err := a.Start(soon(t), Program{Path: "true"})
	var refused *Refused
	if !errors.As(err, &refused) || refused.Words != "Failed to execute ?(No such file)" {
		t.Errorf("%v", err)
	}
	if err := ping(soon(t), a); !errors.As(err, &refused) {
		t.Errorf("after a refusal: %v", err)
	}
}

// TestNobodyAnswers has a caller that is short of time, and whose next one is answered.
func TestNobodyAnswers(t *testing.T) {
	dumb := true
	a := fake{say: func(string, json.RawMessage) string {
		if dumb {
			return ""
		}
		return `{"return": {}}` + "\n"
	}}.serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := ping(ctx, a); fault.KindOf(err) != fault.Busy {
		t.Errorf("ping: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	dumb = false
	if err := ping(soon(t), a); err != nil {
		t.Error(err)
	}
	missing := New(filepath.Join(t.TempDir(), "none"))
	if err := ping(soon(t), missing); fault.KindOf(err) != fault.Unable {
		t.Errorf("no socket: %v", err)
	}
	missing.Close()
	if err := ping(soon(t), missing); fault.KindOf(err) != fault.Conflict {
		t.Errorf("closed: %v", err)
	}
}

func TestAShutdownIsAnsweredByNothing(t *testing.T) {
	a := fake{say: always("")}.serve(t)
	if err := a.Shutdown(soon(t)); err != nil {
		t.Error(err)
	}
	a = fake{say: always(`{"error": {"class": "GenericError", "desc": "child process has failed to shutdown"}}` + "\n")}.serve(t)
	if err := a.Shutdown(soon(t)); err == nil {
		t.Error("an agent that failed has begun a shutdown")
	}
}

// TestAFileIsWrittenAsAWhole has an agent that takes little at a time, and one that lies.
func TestAFileIsWrittenAsAWhole(t *testing.T) {
	var got bytes.Buffer
	lie, closed := false, 0
	a := fake{say: func(command string, args json.RawMessage) string {
		var asked struct {
			Handle int64  `json:"handle"`
			Data   []byte `json:"buf-b64"`
		}
		_ = json.Unmarshal(args, &asked)
		switch {
		case command == "guest-file-open":
			return `{"return": 1000}` + "\n"
		case command == "guest-file-close":
			closed++
			return `{"return": {}}` + "\n"
		case lie:
			return `{"return": {"count": 99999999}}` + "\n"
		}
		n := min(len(asked.Data), 50_000)
		got.Write(asked.Data[:n])
		return fmt.Sprintf(`{"return": {"count": %d, "eof": false}}`, n) + "\n"
	}}.serve(t)
	want := bytes.Repeat([]byte("strata"), 40_000)
	if err := a.WriteFile(soon(t), "/x", bytes.NewReader(want)); err != nil || !bytes.Equal(got.Bytes(), want) || closed != 1 {
		t.Errorf("%d of %d bytes, closed %d times, %v", got.Len(), len(want), closed, err)
	}
	lie = true
	if err := a.WriteFile(soon(t), "/x", bytes.NewReader(want)); err == nil || closed != 2 {
		t.Errorf("an agent that lies: %v, closed %d times", err, closed)
	}
}

// FuzzHostileAgent has an agent say anything to a meeting and to each request.
func FuzzHostileAgent(f *testing.F) {
	for _, text := range []string{
		"", "\n", "\xff", "\xff{\"return\": 1}\n", `{"return": {}}`, `{"return": {"exited": true, "out-data": "AAAA", "exitcode": 1}}`,
		`{"return": [{"name": "x", "ip-addresses": [{"ip-address": "1.2.3.4", "prefix": 8}]}]}`, `{"error": {"class": "x", "desc": "\u0000"}}`,
		`{"return": {"version": "1", "supported_commands": [{"name": "a", "enabled": true}]}}`, strings.Repeat("[", 100), `{"return": "\"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		// The number cannot be guessed: a meeting that is nothing but noise never ends well.
		if err := find(bufio.NewReader(bytes.NewReader(text)), 1<<52+12345); err == nil && !bytes.Contains(text, []byte("4503599627382841")) {
			t.Fatalf("a meeting in %q", text)
		}
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() {
			defer theirs.Close()
			_, _ = theirs.Write(append(bytes.Clone(text), '\n'))
		}()
		answer, err := line(bufio.NewReader(ours), maxLine)
		if err != nil {
			return
		}
		for _, into := range []any{nil, new(int64), new(struct{ Version string }), new([]struct{ Name string })} {
			refused, err := decode(answer, into)
			if err != nil && len(err.Error()) > 2*maxWords {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if refused != nil {
				for _, r := range refused.fault("x").Error() {
					if r < ' ' || r == 0x7f {
						t.Errorf("a control character: %q", refused.fault("x").Error())
					}
				}
			}
		}
	})
}

func TestProcessorsAreBroughtIntoUse(t *testing.T) {
	list := `{"return": [{"logical-id": 0, "online": true, "can-offline": false}, {"logical-id": 1, "online": false, "can-offline": true}, {"logical-id": 2, "online": false, "can-offline": true}]}`
	for sentence, c := range map[string]struct {
		n             int
		set           string // what guest-set-vcpus answers
		asked         string // what it was asked
		used          int
		cannotBeAsked bool
	}{
		"one of two":             {2, `{"return": 1}`, `{"vcpus":[{"logical-id":1,"online":true}]}`, 2, false},
		"both":                   {3, `{"return": 2}`, `{"vcpus":[{"logical-id":1,"online":true},{"logical-id":2,"online":true}]}`, 3, false},
		"more than it has found": {5, `{"return": 2}`, `{"vcpus":[{"logical-id":1,"online":true},{"logical-id":2,"online":true}]}`, 3, false},
		"no more":                {1, "", "", 1, false},
		"fewer than asked":       {3, `{"return": 1}`, `{"vcpus":[{"logical-id":1,"online":true},{"logical-id":2,"online":true}]}`, 2, false},
		"an answer beyond sense": {2, `{"return": 99}`, `{"vcpus":[{"logical-id":1,"online":true}]}`, 2, false},
		"it refuses":             {2, `{"error": {"class": "GenericError", "desc": "no"}}`, `{"vcpus":[{"logical-id":1,"online":true}]}`, 1, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			asked := ""
			a := fake{say: func(command string, args json.RawMessage) string {
				if command == "guest-get-vcpus" {
					return list + "\n"
				}
				asked = string(args)
				return c.set + "\n"
			}}.serve(t)
			used, err := a.UseProcessors(t.Context(), c.n)
			if used != c.used || (err != nil) != c.cannotBeAsked || asked != c.asked {
				t.Errorf("%d are in use, %v, after %s; want %d after %s", used, err, asked, c.used, c.asked)
			}
		})
	}
}
