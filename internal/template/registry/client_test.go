package registry

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// stall is what these tests give a connection; a machine under load may stop for less.
const stall = 500 * time.Millisecond

// within fails where do takes so long that nobody can have ended it.
func within(t *testing.T, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(60 * stall):
		t.Fatal("it waits for ever")
	}
}

func TestAnAnswerThatStopsComingIsGivenUp(t *testing.T) {
	end := make(chan struct{})
	defer close(end)
	for _, code := range []int{http.StatusOK, http.StatusInternalServerError} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(code)
			fmt.Fprint(w, "{")
			w.(http.Flusher).Flush()
			<-end
		}))
		t.Cleanup(srv.Close) // after the handlers
		within(t, func() {
			resp, err := (&http.Client{Transport: transportThatEnds(stall)}).Get(srv.URL)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if all, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("%d ended well, with %q", code, all)
			}
		})
	}
}

func TestAnUploadThatNobodyReadsIsGivenUp(t *testing.T) {
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close() // nobody accepts: the kernel takes what fits its buffers
	within(t, func() {
		body := io.LimitReader(zeros{}, 1<<30)
		resp, err := (&http.Client{Transport: transportThatEnds(stall)}).Post("http://"+deaf.Addr().String(), "", body)
		if err == nil {
			resp.Body.Close()
			t.Error("it was sent")
		}
	})
}

func TestWhatMovesSlowlyIsNotGivenUp(t *testing.T) {
	pause := func() { time.Sleep(stall / 5) }
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		for buf := make([]byte, 1); ; pause() { // first all is read, and nothing said
			if _, err := req.Body.Read(buf); err != nil {
				break
			}
		}
		for range 10 {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			pause()
		}
	}))
	defer srv.Close()
	r, w := io.Pipe()
	go func() {
		for range 10 {
			fmt.Fprint(w, "x")
			pause()
		}
		w.Close()
	}()
	resp, err := (&http.Client{Transport: transportThatEnds(stall)}).Post(srv.URL, "", r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if all, err := io.ReadAll(resp.Body); err != nil || string(all) != strings.Repeat("x", 10) {
		t.Errorf("%q, %v", all, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
