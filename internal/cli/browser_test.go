package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/screen"
	"github.com/strata-project/strata/internal/screen/screentest"
	"github.com/strata-project/strata/internal/server"
	"github.com/strata-project/strata/internal/server/servertest"
)

// served is a daemon whose environment "machine" has the screen s.
func served(t *testing.T, s engine.Screen) *client.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "vnc") // short, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fake := servertest.New()
	fake.Screens["machine"] = s
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	h := server.New(fake, slog.New(slog.DiscardHandler)).HTTP()
	go h.Serve(l)
	t.Cleanup(func() { h.Close() })
	c := client.New(l.Addr().String())
	t.Cleanup(c.Close)
	if _, err := c.Create(t.Context(), api.Spec{Name: "machine", Template: "busybox", Command: []string{"sleep", "60"}}); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context(), "machine"); err != nil {
		t.Fatal(err)
	}
	return c
}

// page serves the console of the machine, and returns its address.
func page(t *testing.T, c *client.Client) string {
	t.Helper()
	l, err := listenAt("", true, "machine")
	if err != nil {
		t.Fatal(err)
	}
	return pageOn(t, c, l)
}

func pageOn(t *testing.T, c *client.Client, l net.Listener) string {
	t.Helper()
	t.Cleanup(func() { l.Close() })
	out, in := io.Pipe()
	go (&app{out: in, err: io.Discard}).serveWeb(t.Context(), c, l, "machine")
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestABrowserShowsAMachine is the whole way: a browser, noVNC, the proxy, the
// daemon, QEMU; and a key that is pressed goes all of it.
func TestABrowserShowsAMachine(t *testing.T) {
	program := require.Tool(t, "chromium-headless-shell")
	real, ctx := screentest.Boot(t, screentest.Sector(nil, screentest.Echo))
	b := browse(t, ctx, program, page(t, served(t, real)))
	const shown = `(() => {
		const c = document.querySelector('#screen canvas');
		return document.body.dataset.state + ' ' + (c ? c.width + 'x' + c.height : 'nothing');
	})()`
	b.until(ctx, shown, "connected 720x400")
	for _, r := range "it works, yes" {
		key := map[string]any{"type": "keyDown", "key": string(r), "text": string(r), "code": code(r)}
		b.call(ctx, "Input.dispatchKeyEvent", key)
		key["type"] = "keyUp"
		b.call(ctx, "Input.dispatchKeyEvent", key)
		time.Sleep(screen.DefaultPace) // as a person does
	}
	if _, _, err := real.Wait(ctx, regexp.MustCompile("it works, yes")); err != nil {
		t.Fatal(err)
	}
	// What was typed is drawn in the browser too.
	b.until(ctx, `(() => {
		const c = document.querySelector('#screen canvas');
		const dots = c.getContext('2d').getImageData(0, 0, 81, 16).data;
		return dots.filter((v, i) => i % 4 === 0 && v > 100).length > 50;
	})()`, true)
}

// code is the key of a US keyboard that has a character.
func code(r rune) string {
	switch {
	case r == ' ':
		return "Space"
	case r == ',':
		return "Comma"
	}
	return "Key" + strings.ToUpper(string(r))
}

// browser is a page of a browser, by its debugging protocol.
// Source: Chrome DevTools Protocol, 1.3.
type browser struct {
	t    *testing.T
	conn *websocket.Conn
	id   int
}

func browse(t *testing.T, ctx context.Context, program, at string) *browser {
	t.Helper()
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--user-data-dir="+dir, at)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with all its children
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		for range 50 { // its children end a little later
			if os.RemoveAll(dir) == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("%s is left", dir)
	})
	lines := bufio.NewScanner(said)
	var port string
	var heard bytes.Buffer
	for port == "" && lines.Scan() {
		heard.WriteString(lines.Text() + "\n")
		if _, rest, ok := strings.Cut(lines.Text(), "DevTools listening on ws://"); ok {
			port, _, _ = strings.Cut(rest, "/")
		}
	}
	if port == "" {
		t.Fatalf("the browser does not start: %s", &heard)
	}
	go io.Copy(io.Discard, said)
	answer, err := http.Get("http://" + port + "/json/list")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var pages []struct {
		Type string `json:"type"`
		URL  string `json:"webSocketDebuggerUrl"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&pages); err != nil || len(pages) == 0 {
		t.Fatalf("the browser has no page: %v", err)
	}
	conn, _, err := websocket.Dial(ctx, pages[0].URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	return &browser{t: t, conn: conn}
}

func (b *browser) call(ctx context.Context, method string, params any) json.RawMessage {
	b.t.Helper()
	b.id++
	if err := wsjson.Write(ctx, b.conn, map[string]any{"id": b.id, "method": method, "params": params}); err != nil {
		b.t.Fatal(err)
	}
	for {
		var answer struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
			Error  json.RawMessage `json:"error"`
		}
		if err := wsjson.Read(ctx, b.conn, &answer); err != nil {
			b.t.Fatal(err)
		}
		if answer.ID != b.id {
			continue
		}
		if answer.Error != nil {
			b.t.Fatalf("%s: %s", method, answer.Error)
		}
		return answer.Result
	}
}

// until asks the page until it answers want.
func (b *browser) until(ctx context.Context, expression string, want any) {
	b.t.Helper()
	var got string
	for ctx.Err() == nil {
		var answer struct {
			Result struct{ Value any }
		}
		result := b.call(ctx, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true})
		if err := json.Unmarshal(result, &answer); err != nil {
			b.t.Fatal(err)
		}
		if answer.Result.Value == want {
			return
		}
		got = fmt.Sprint(string(result))
		time.Sleep(100 * time.Millisecond)
	}
	b.t.Fatalf("the page says %s; want %v", got, want)
}
