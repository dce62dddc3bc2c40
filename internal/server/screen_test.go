package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/server/servertest"
)

// machine makes and starts an environment that has a screen.
func (r *rig) machine() {
	r.Helper()
	r.create(`{"template":"busybox","name":"machine","command":["sleep","60"]}`)
	if status, text := r.do("POST", "/v1/environments/machine/start", ""); status != 204 {
		r.Fatalf("start = %d %s", status, text)
	}
}

func TestAScreenIsShownAndTypedOn(t *testing.T) {
	r := start(t)
	r.machine()
	status, text := r.do("GET", "/v1/environments/machine/screen.png", "")
	p, err := png.Decode(strings.NewReader(text))
	if status != 200 || err != nil || p.Bounds().Dx() != 4 {
		t.Errorf("the picture: %d %v", status, err)
	}
	if status, text := r.do("POST", "/v1/environments/machine/type", `{"text":"ls\n","keys":["f2","ctrl-c"],"pace":"10ms"}`); status != 204 {
		t.Errorf("type = %d %s", status, text)
	}
	if status, text := r.do("GET", "/v1/environments/machine/screen.txt", ""); status != 200 || text != "boot: ls\n<f2><ctrl-c>\n" {
		t.Errorf("the text: %d %q", status, text)
	}
	status, text = r.do("POST", "/v1/environments/machine/screen/wait?pattern=%5Eboot:+(..)$&timeout=5s", "")
	var m api.ScreenMatch
	if err := json.Unmarshal([]byte(text), &m); err != nil || status != 200 || len(m.Match) != 2 || m.Match[1] != "ls" || m.Text == "" {
		t.Errorf("wait = %d %s", status, text)
	}
}

func TestWhatIsRefusedOfScreens(t *testing.T) {
	r := start(t)
	r.create(`{"template":"busybox","name":"zone"}`)
	for _, c := range []struct{ method, path, body string }{
		{"GET", "screen.png", ""}, {"GET", "screen.txt", ""}, {"POST", "screen/wait?pattern=x", ""}, {"POST", "type", `{"text":"x"}`},
	} {
		if e := r.refused(c.method, "/v1/environments/zone/"+c.path, c.body, 501); !strings.Contains(e.Message, "no screen") || !strings.Contains(e.Hint, "--stratum machine") {
			t.Errorf("%s: %+v", c.path, e)
		}
	}
	r.create(`{"template":"busybox","name":"machine","command":["sleep","60"]}`)
	r.refused("GET", "/v1/environments/machine/screen.png", "", 409)
	r.do("POST", "/v1/environments/machine/start", "")
	for _, c := range []struct {
		path, body, field string
		status            int
	}{
		{"type", `{}`, "text", 400}, {"type", `{"text":"ä"}`, "text", 400}, {"screen/wait?pattern=(", "", "pattern", 400}, {"screen/wait", "", "pattern", 400},
		{"screen/wait?pattern=x&timeout=soon", "", "timeout", 400}, {"screen/wait?pattern=never&timeout=20ms", "", "", 503},
	} {
		if e := r.refused("POST", "/v1/environments/machine/"+c.path, c.body, c.status); e.Field != c.field && c.field != "" {
			t.Errorf("%s %s: %+v", c.path, c.body, e)
		}
	}
	if e := r.refused("GET", "/v1/environments/machine/vnc", "", 400); e.Field != "Upgrade" {
		t.Errorf("vnc without an upgrade: %+v", e)
	}
	r.do("POST", "/v1/environments/machine/type", `{"text":"graphics"}`)
	r.refused("GET", "/v1/environments/machine/screen.txt", "", 501)
}

// upgradeTo sends the headers of an upgrade, and returns what is answered.
func (r *rig) upgradeTo(path string, headers ...string) (net.Conn, *bufio.Reader, *http.Response) {
	r.Helper()
	conn, err := net.Dial("unix", r.socket)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: strata\r\nConnection: Upgrade\r\n%s\r\n\r\n", path, strings.Join(headers, "\r\n"))
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil {
		r.Fatal(err)
	}
	return conn, in, answer
}

func TestViewersAreJoinedRawAndByWebsocket(t *testing.T) {
	r := start(t)
	r.machine()
	const path = "/v1/environments/machine/vnc"
	conn, in, answer := r.upgradeTo(path, "Upgrade: "+api.RFBProtocol)
	if answer.StatusCode != 101 || answer.Header.Get("Upgrade") != api.RFBProtocol {
		t.Fatalf("answered %v", answer)
	}
	echoes(t, struct {
		io.Reader
		io.Writer
	}{in, conn})

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ws, answer, err := websocket.Dial(ctx, "ws://strata"+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: r.http.Transport}, Subprotocols: []string{"binary"}, HTTPHeader: http.Header{"Origin": {"http://strata"}},
	})
	if err != nil || answer.Header.Get("Sec-Websocket-Protocol") != "binary" {
		t.Fatalf("%v, %v", answer, err)
	}
	echoes(t, websocket.NetConn(ctx, ws, websocket.MessageBinary))

	// A page of another place could be open in a browser that may ask.
	_, answer, err = websocket.Dial(ctx, "ws://strata"+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: r.http.Transport}, HTTPHeader: http.Header{"Origin": {"http://elsewhere"}},
	})
	if err == nil || answer == nil || answer.StatusCode != 403 {
		t.Errorf("another origin: %v, %v", answer, err)
	}
	r.server.End() // viewers would stay for ever
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("when the daemon ends: %v", err)
	}
	r.create(`{"template":"busybox","name":"zone"}`)
	if _, _, answer := r.upgradeTo("/v1/environments/zone/vnc", "Upgrade: "+api.RFBProtocol); answer.StatusCode != 501 {
		t.Errorf("a zone's screen: %v", answer)
	}
}

func echoes(t *testing.T, rw io.ReadWriter) {
	t.Helper()
	got := make([]byte, len(servertest.Greeting))
	if _, err := io.ReadFull(rw, got); err != nil || string(got) != servertest.Greeting {
		t.Fatalf("it says %q, %v", got, err)
	}
	if _, err := io.WriteString(rw, "again"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(rw, got[:5]); err != nil || string(got[:5]) != "again" {
		t.Fatalf("it says %q, %v", got[:5], err)
	}
}
