package registry

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/strata-project/strata/internal/fault"
)

// serve returns a client of a registry whose blobs answer.
func serve(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/v2/" {
			answer(w, req)
		}
	}))
	t.Cleanup(srv.Close)
	repo, err := name.NewRepository(strings.TrimPrefix(srv.URL, "http://") + "/app")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), repo, authn.NewMultiKeychain())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDownload(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789"), 100)
	ranged := func(w http.ResponseWriter, req *http.Request) {
		var from int
		if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(blob[from:])
	}
	whole := func(w http.ResponseWriter, _ *http.Request) { w.Write(blob) }
	for name, c := range map[string]struct {
		before []byte // in the file
		answer http.HandlerFunc
		kind   fault.Kind
		says   string // "": it works
	}{
		"from nothing":                            {nil, whole, 0, ""},
		"the rest of it":                          {blob[:400], ranged, 0, ""},
		"all again where ranges are not known":    {blob[:400], whole, 0, ""},
		"nothing where it is all there":           {blob, func(w http.ResponseWriter, _ *http.Request) { t.Error("asked for what is there") }, 0, ""},
		"again where what was there is too long":  {append(bytes.Clone(blob), 'x'), ranged, 0, ""},
		"again where what was there is something": {[]byte("something else"), ranged, 0, ""},
		"again where all of it is something else": {bytes.Repeat([]byte("x"), len(blob)), ranged, 0, ""},
		"not another blob":                        {nil, func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.Repeat([]byte("x"), len(blob))) }, fault.Invalid, "tampered"},
		"not a longer one":                        {nil, func(w http.ResponseWriter, _ *http.Request) { w.Write(append(bytes.Clone(blob), 'x')) }, fault.Invalid, "more than"},
		"not what is missing":                     {nil, http.NotFound, fault.Missing, "check the name"},
		"not what is refused":                     {nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, fault.Denied, "docker login"},
		"not from another place in it": {blob[:400], func(w http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Range") == "" {
				whole(w, req) // the second time, when it starts again
				return
			}
			w.Header().Set("Content-Range", "bytes 100-999/1000")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(blob[100:])
		}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, c.answer)
			to := filepath.Join(t.TempDir(), "blob")
			if c.before != nil {
				if err := os.WriteFile(to, c.before, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := client.Download(t.Context(), Blob{Digest: digestOf(blob), Size: int64(len(blob)), To: to})
			if c.says != "" {
				if !fault.Is(err, c.kind) || !strings.Contains(err.Error()+fault.All(err)[0].Hint, c.says) {
					t.Errorf("error is %v", err)
				}
				if c.kind == fault.Invalid {
					if _, err := os.Stat(to); !os.IsNotExist(err) {
						t.Error("what was wrong is still there")
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, blob) {
				t.Errorf("the file has %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestDownloadAsksForRoomFirst(t *testing.T) {
	to := filepath.Join(t.TempDir(), "blob")
	client := serve(t, func(w http.ResponseWriter, _ *http.Request) { t.Error("the registry was asked for what has no room") })
	for _, size := range []int64{1 << 60, 1<<63 - 1} {
		err := client.Download(t.Context(), Blob{Digest: digestOf(nil), Size: size, To: to})
		if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if info, err := os.Stat(to); err == nil && info.Size() > 0 {
		t.Errorf("%d bytes came", info.Size())
	}
}

func TestManifestIsBoundedAndVerified(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"some":"manifest"}`)) })
	if _, _, err := client.Manifest(t.Context(), "latest", 10); !fault.Is(err, fault.Invalid) {
		t.Errorf("too long: %v", err)
	}
	if _, _, err := client.Manifest(t.Context(), digestOf([]byte("other")), 100); !fault.Is(err, fault.Invalid) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := client.Document(t.Context(), digestOf([]byte("other")), 100); !fault.Is(err, fault.Invalid) {
		t.Errorf("another document: %v", err)
	}
}

func TestNoRedirectFromHTTPS(t *testing.T) {
	request := func(url string) *http.Request { return httptest.NewRequest(http.MethodGet, url, nil) }
	if checkRedirect(request("http://cdn.example/x"), []*http.Request{request("https://registry.example/x")}) == nil {
		t.Error("a redirect from https to http was followed")
	}
	if err := checkRedirect(request("https://cdn.example/x"), []*http.Request{request("https://registry.example/x")}); err != nil {
		t.Error(err)
	}
}
