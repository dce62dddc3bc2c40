package cli

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/client"
)

// TestRoomIsWaitedForWithTheNextDaemon has the first one end while it is, and nobody answer
// until the next one has begun.
func TestRoomIsWaitedForWithTheNextDaemon(t *testing.T) {
	away := 0 // how often nobody answers
	var waits []time.Duration
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away > 0 {
			away--
			panic(http.ErrAbortHandler)
		}
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte("{}"))
			return
		}
		patience, err := time.ParseDuration(r.URL.Query().Get("patience"))
		if err != nil || r.URL.Path != "/v1/environments/web/queue" {
			t.Errorf("%s was asked for: %v", r.URL, err)
		}
		waits = append(waits, patience)
		if len(waits) == 1 {
			away = 3
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	c := client.NewDial(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	})
	defer c.Close()
	if err := queueFor(t.Context(), c, "web", api.Next{}, "1m"); err != nil {
		t.Fatal(err)
	}
	if len(waits) != 2 || waits[0] > time.Minute || waits[1] >= waits[0] || waits[1] < 30*time.Second {
		t.Errorf("it waited for %v; want what was left of a minute the second time", waits)
	}
}
