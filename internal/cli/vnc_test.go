package cli

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/client"
	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/require"
	"github.com/strata-project/strata/internal/screen/screentest"
	"github.com/strata-project/strata/internal/server/servertest"
)

func TestThePageIsForWhoHasTheKey(t *testing.T) {
	at := page(t, served(t, new(servertest.Screen)))
	u, err := url.Parse(at)
	key, rest, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if err != nil || u.Hostname() != "127.0.0.1" || len(key) < 26 || rest != "console/machine" {
		t.Fatalf("the page is at %s, %v", at, err)
	}
	base := "http://" + u.Host
	known := base + "/" + key
	c := &http.Client{Timeout: 10 * time.Second}
	get := func(method, at string, change func(*http.Request)) int {
		t.Helper()
		r, err := http.NewRequest(method, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(r)
		}
		answer, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.Header.Get("Set-Cookie") != "" { // other servers of this host would be given it
			t.Errorf("%s sets a cookie", at)
		}
		return answer.StatusCode
	}
	const picture = "/v1/environments/machine/screen.png"
	for _, path := range []string{"", "/", "/?key=" + key, "/" + strings.Repeat("A", 26) + "/console/machine", "//" + key + "/console/machine", "/console/machine", "/console/-/console.js", picture} {
		if status := get("GET", base+path, func(r *http.Request) { r.Header.Set("Cookie", "strata-"+u.Port()+"="+key) }); status != 403 {
			t.Errorf("without the key %s answers %d", path, status)
		}
	}
	for _, at := range []string{at, known + "/console/-/console.js", known + picture} {
		if status := get("GET", at, nil); status != 200 {
			t.Errorf("with the key %s answers %d", at, status)
		}
	}
	for _, path := range []string{"", "/", "/v1/environments", "/v1/environments/machine", "/v1/environments/other/screen.png", "/console/other", "/metrics", "/console/-/%2e%2e/%2e%2e/v1/environments"} {
		if status := get("GET", known+path, nil); status != 404 {
			t.Errorf("what the page does not need: %s answers %d", path, status)
		}
	}
	if status := get("POST", known+"/v1/environments/machine/vnc", nil); status != 404 {
		t.Errorf("a POST answers %d", status)
	}
	if status := get("GET", known+picture, func(r *http.Request) { r.Host = "elsewhere.example" }); status != 403 {
		t.Errorf("another name for this address answers %d", status)
	}
	status := get("GET", known+"/v1/environments/machine/vnc", func(r *http.Request) {
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Origin": "http://elsewhere.example"} {
			r.Header.Set(name, value)
		}
	})
	if status != 403 {
		t.Errorf("a page of another place answers %d", status)
	}
}

// port80 is a listener that is asked as if it had HTTP's own port.
type port80 struct{ net.Listener }

func (port80) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

// TestThePageIsServedAtHTTPsOwnPort asks as browsers do, which leave it out.
func TestThePageIsServedAtHTTPsOwnPort(t *testing.T) {
	l, err := listenAt("", true, "machine")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(pageOn(t, served(t, new(servertest.Screen)), port80{l}))
	if err != nil || u.Hostname() != "127.0.0.1" {
		t.Fatalf("the page is at %v, %v", u, err)
	}
	r, err := http.NewRequest("GET", "http://"+l.Addr().String()+u.Path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "127.0.0.1"
	answer, err := (&http.Client{Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 200 {
		t.Errorf("the page answers %d", answer.StatusCode)
	}
}

// viewers serves the machine's screen at an address, and returns what is said of it.
func viewers(t *testing.T, c *client.Client, at string) (net.Addr, string) {
	t.Helper()
	l, err := listenAt(at, false, "machine")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	said, done := new(bytes.Buffer), make(chan error)
	out, in := io.Pipe()
	go func() { done <- (&app{out: in, err: said}).serveVNC(ctx, c, l, "machine") }()
	t.Cleanup(func() {
		cancel()
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if _, err := out.Read(make([]byte, 256)); err != nil {
		t.Fatal(err)
	}
	return l.Addr(), said.String()
}

func TestASocketIsForItsOwner(t *testing.T) {
	c := served(t, new(servertest.Screen))
	path := filepath.Join(t.TempDir(), "s")
	at, _ := viewers(t, c, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	conn, err := net.Dial("unix", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(require.Patience(10 * time.Second)))
	got := make([]byte, len(servertest.Greeting)+5)
	if _, err := io.WriteString(conn, "again"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != servertest.Greeting+"again" {
		t.Errorf("it says %q, %v", got, err)
	}
	if _, err := listenAt(path, false, "machine"); !fault.Is(err, fault.Conflict) {
		t.Errorf("a path that is taken: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listenAt(l.Addr().String(), false, "machine"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("a port that is taken: %v", err)
	}
}

// TestAPortWantsAPassword plays a viewer, and a server that wants none behind it.
func TestAPortWantsAPassword(t *testing.T) {
	for sentence, c := range map[string]struct {
		kind     byte
		password string
		result   byte
		why      string
	}{
		"the right one": {rfbPassword, "secret12", 0, ""},
		"a wrong one":   {rfbPassword, "secret13", 1, wrongPassword},
		"none":          {rfbNone, "", 1, "no password"},
	} {
		t.Run(sentence, func(t *testing.T) {
			viewer, ours := net.Pipe()
			defer viewer.Close()
			viewer.SetDeadline(time.Now().Add(require.Patience(10 * time.Second)))
			done := make(chan error, 1)
			go func() { done <- challenge(ours, "secret12"); ours.Close() }()
			read := func(n int) []byte {
				b := make([]byte, n)
				if _, err := io.ReadFull(viewer, b); err != nil {
					return nil
				}
				return b
			}
			if got := string(read(12)); got != rfbVersion {
				t.Fatalf("it says %q", got)
			}
			io.WriteString(viewer, rfbVersion)
			if got := read(2); !bytes.Equal(got, []byte{1, rfbPassword}) {
				t.Fatalf("it offers %v", got)
			}
			viewer.Write([]byte{c.kind})
			if c.kind == rfbPassword {
				answer, err := answerTo([challengeSize]byte(read(challengeSize)), c.password)
				if err != nil {
					t.Fatal(err)
				}
				viewer.Write(answer[:])
				if got := read(4); len(got) != 4 || got[3] != c.result {
					t.Errorf("the result is %v", got)
				}
				io.Copy(io.Discard, viewer)
			}
			err := <-done
			if c.why == "" && err != nil || c.why != "" && (!fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), c.why)) {
				t.Errorf("got %v", err)
			}
		})
	}
	// As `openssl enc -des-ecb -nopad -K C2F2EA0000000000` has it, of zeros.
	got, err := answerTo([challengeSize]byte{}, "COW")
	if err != nil || hex.EncodeToString(got[:8]) != "ceea96bcc9fda78b" {
		t.Errorf("%x, %v", got, err)
	}
}

// TestAPortOfAMachine goes through both handshakes with a real QEMU.
func TestAPortOfAMachine(t *testing.T) {
	real, ctx := screentest.Boot(t, nil)
	if _, _, err := real.Wait(ctx, regexp.MustCompile("No bootable device")); err != nil {
		t.Fatal(err)
	}
	at, said := viewers(t, served(t, real), "127.0.0.1:0")
	_, password, ok := strings.Cut(strings.TrimSpace(said), "password: ")
	if !ok || len(password) != maxPassword {
		t.Fatalf("it says %q", said)
	}
	viewer, err := net.Dial(at.Network(), at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer viewer.Close()
	viewer.SetDeadline(time.Now().Add(screentest.Patience))
	var version [12]byte
	var offer [2]byte
	var asked [challengeSize]byte
	var result, size [4]byte
	if _, err := io.ReadFull(viewer, version[:]); err != nil {
		t.Fatal(err)
	}
	if err := swap(viewer, rfbVersion, offer[:]); err != nil {
		t.Fatal(err)
	}
	if err := swap(viewer, string([]byte{rfbPassword}), asked[:]); err != nil {
		t.Fatal(err)
	}
	answer, err := answerTo(asked, password)
	if err != nil {
		t.Fatal(err)
	}
	if err := swap(viewer, string(answer[:]), result[:]); err != nil || result != [4]byte{} {
		t.Fatalf("%v, %v", result, err)
	}
	if err := swap(viewer, "\x01", size[:]); err != nil || size != [4]byte{720 >> 8, 720 & 0xff, 400 >> 8, 400 & 0xff} {
		t.Errorf("the screen is %v, %v", size, err)
	}
}

func TestBehindAPasswordTheScreenAsksForNone(t *testing.T) {
	for sentence, c := range map[string]struct {
		result []byte
		ok     bool
	}{"let in": {[]byte{0, 0, 0, 0}, true}, "refused": {[]byte{0, 0, 0, 1}, false}} {
		t.Run(sentence, func(t *testing.T) {
			ours, screen := net.Pipe()
			defer ours.Close()
			go func() {
				defer screen.Close()
				io.WriteString(screen, rfbVersion)
				io.ReadFull(screen, make([]byte, 12))
				screen.Write([]byte{2, rfbNone, 16})
				io.ReadFull(screen, make([]byte, 1))
				screen.Write(c.result)
			}()
			if err := enter(ours); (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}
