package server

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/server/servertest"
)

func TestABodyThatDoesNotComeIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		cut  bool // the sender says that no more comes
		want string
	}{
		"it breaks off":    {true, "broke off"},
		"it is waited for": {false, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(servertest.New(), slog.New(slog.DiscardHandler))
			s.bodyTimeout = 50 * time.Millisecond
			h := httptest.NewServer(s.Handler())
			defer h.Close()
			conn, err := net.Dial("tcp", h.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			fmt.Fprint(conn, "POST /v1/networks HTTP/1.1\r\nHost: strata\r\nContent-Length: 100\r\n\r\n{\"name\":")
			if c.cut {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close()
			said := make([]byte, 200)
			n, _ := answer.Body.Read(said)
			if answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(said[:n]), c.want) {
				t.Errorf("%s %s", answer.Status, said[:n])
			}
		})
	}
}

func TestAnInternalFailureIsLoggedWithItsReason(t *testing.T) {
	var log bytes.Buffer
	s := New(servertest.New(), slog.New(slog.NewTextHandler(&log, nil)))
	for _, err := range []error{fault.Missingf("there is none"), fault.Internalf("the disk is odd")} {
		answer := httptest.NewRecorder()
		s.guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeFault(w, err) })).
			ServeHTTP(answer, httptest.NewRequest("GET", "/v1/info", nil))
		if answer.Code != fault.KindOf(err).HTTP() {
			t.Errorf("%v: %d", err, answer.Code)
		}
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `level=WARN`) || !strings.Contains(got, `error="the disk is odd"`) {
		t.Errorf("it logged\n%s", got)
	}
}
