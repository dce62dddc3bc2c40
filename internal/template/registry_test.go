package template

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/strata-project/strata/internal/fault"
)

// anonymous keeps tests from the credentials of who runs them.
var anonymous = PullOptions{Keychain: authn.NewMultiKeychain()}

// fakeRegistry is go-containerregistry's, behind a handler of the test's.
type fakeRegistry struct {
	host string
	mu   sync.Mutex
	wrap func(http.Handler) http.Handler
}

func newRegistry(t testing.TB) *fakeRegistry {
	t.Helper()
	inner := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	r := new(fakeRegistry)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		wrap := r.wrap
		r.mu.Unlock()
		if wrap != nil {
			wrap(inner).ServeHTTP(w, req)
			return
		}
		inner.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	r.host = strings.TrimPrefix(srv.URL, "http://")
	return r
}

func (r *fakeRegistry) through(wrap func(http.Handler) http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrap = wrap
}

// blobs lets a test answer requests for blobs.
func (r *fakeRegistry) blobs(answer func(w http.ResponseWriter, req *http.Request, inner http.Handler)) {
	r.through(func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
				answer(w, req, inner)
				return
			}
			inner.ServeHTTP(w, req)
		})
	})
}

// image makes an image of layers, each a tar.
func image(t testing.TB, arch string, layers ...*bytes.Buffer) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for _, data := range layers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", arch
	c.Config = v1.Config{Cmd: []string{"/bin/x"}, Env: []string{"A=b"}, ExposedPorts: map[string]struct{}{"80/tcp": {}}, Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "true"}, Retries: 3}}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func (r *fakeRegistry) put(t testing.TB, repo string, img remote.Taggable) string {
	t.Helper()
	ref, err := name.ParseReference(r.host + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Put(ref, img); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

func (r *fakeRegistry) write(t testing.TB, repo string, img v1.Image) string {
	t.Helper()
	ref, err := name.ParseReference(r.host + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

// noise is a file that does not compress, of n bytes.
func noise(n int) string {
	var b strings.Builder
	for x := uint64(1); b.Len() < n; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		fmt.Fprintf(&b, "%016x", x)
	}
	return b.String()[:n]
}

func TestPullAndPushKeepTheDigests(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	img := image(t, Host().Architecture, makeTar(t, file("a", "1")), makeTar(t, file(".wh.a", ""), file("b", "2")))
	ref := reg.write(t, "team/app:1", img)
	var mu sync.Mutex
	steps := map[string]bool{}
	tm, err := s.Pull(t.Context(), ref, anonymous, func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		steps[p.Step] = true
	})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := img.ConfigName()
	if tm.ID != id.String() || len(tm.Layers) != 2 || tm.Names[0] != ref || tm.Config.ExposedPorts[0] != "80/tcp" || tm.Config.Health.Retries != 3 {
		t.Errorf("template is %+v", tm)
	}
	if !steps["download"] || !steps["unpack"] {
		t.Errorf("steps told: %v", steps)
	}
	target := reg.host + "/other/copy:2"
	if err := s.Push(t.Context(), ref, target, anonymous, nil); err != nil {
		t.Fatal(err)
	}
	back, err := remote.Image(mustRef(t, target))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := img.Digest()
	if got, _ := back.Digest(); got != want {
		t.Errorf("pushed digest is %s, want %s", got, want)
	}
	// The same again, by digest, from another registry's name: nothing new on the disk but the name.
	before := len(files(t, s))
	again, err := s.Pull(t.Context(), reg.host+"/other/copy@"+want.String(), anonymous, nil)
	if err != nil || again.ID != tm.ID || len(again.Names) != 2 || len(files(t, s)) != before {
		t.Errorf("second pull: %+v, %v", again, err)
	}
}

func mustRef(t testing.TB, text string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func TestPullPicksThePlatform(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	var adds []mutate.IndexAddendum
	for _, arch := range []string{"s390x", "arm64", "amd64"} {
		img := image(t, arch, makeTar(t, file("arch", arch)))
		reg.write(t, "multi:"+arch, img)
		adds = append(adds, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ref := reg.put(t, "multi:all", mutate.AppendManifests(empty.Index, adds...))
	for platform, want := range map[string]string{"": Host().Architecture, "linux/arm64": "arm64", "linux/arm64/v8": "arm64", "linux/s390x": "s390x"} {
		opt := anonymous
		opt.Platform = platform
		tm, err := s.Pull(t.Context(), ref, opt, nil)
		if err != nil || tm.Arch != want {
			t.Errorf("platform %q: %s, %v; want %s", platform, tm.Arch, err, want)
		}
	}
	opt := anonymous
	opt.Platform = "linux/riscv64"
	_, err := s.Pull(t.Context(), ref, opt, nil)
	wantKind(t, err, fault.Missing, "linux/riscv64", "linux/arm64")
	opt.Platform = "windows/amd64"
	_, err = s.Pull(t.Context(), ref, opt, nil)
	wantKind(t, err, fault.Unable)
	opt.Platform = "arm64"
	_, err = s.Pull(t.Context(), ref, opt, nil)
	wantKind(t, err, fault.Invalid, "os/arch")
	single := reg.write(t, "single:1", image(t, "s390x", makeTar(t, file("a", "x"))))
	_, err = s.Pull(t.Context(), single, anonymous, nil)
	wantKind(t, err, fault.Missing, "--platform")
}

func TestPullGoesOnWhereItStopped(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	ref := reg.write(t, "app:1", image(t, Host().Architecture, makeTar(t, file("big", noise(3<<20)))))
	var ranges, cuts atomic.Int32
	var sent atomic.Int64
	reg.blobs(func(w http.ResponseWriter, req *http.Request, inner http.Handler) {
		rec := httptest.NewRecorder()
		plain := req.Clone(req.Context())
		plain.Header.Del("Range")
		inner.ServeHTTP(rec, plain)
		body := rec.Body.Bytes()
		var from int
		if _, err := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			ranges.Add(1)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
			w.Header().Set("Content-Length", fmt.Sprint(len(body)-from))
			w.WriteHeader(http.StatusPartialContent)
			body = body[from:]
		} else {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		}
		if len(body) > 1<<20 && cuts.Add(1) < 4 {
			body = body[:1<<19] // the connection breaks: fewer bytes than announced
		}
		n, _ := w.Write(body)
		sent.Add(int64(n))
	})
	tm, err := s.Pull(t.Context(), ref, anonymous, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranges.Load() < 2 || sent.Load() > tm.Size {
		t.Errorf("%d ranges asked for, %d bytes sent for a layer of %d", ranges.Load(), sent.Load(), tm.Size)
	}
}

func TestPullBrokenOffIsTakenUpByTheNext(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	ref := reg.write(t, "app:1", image(t, Host().Architecture, makeTar(t, file("big", noise(2<<20)))))
	broken := func(w http.ResponseWriter, req *http.Request, inner http.Handler) {
		if req.Header.Get("Range") != "" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, req)
		body := rec.Body.Bytes()
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body[:max(len(body)/2, min(len(body), 4096))])
	}
	reg.blobs(broken)
	_, err := s.Pull(t.Context(), ref, anonymous, nil)
	wantKind(t, err, fault.Busy, "try again")
	left := files(t, s)
	if len(left) != 1 || !strings.HasPrefix(left[0], downloadDir) {
		t.Fatalf("left behind: %q, want one download", left)
	}
	s = reopen(t, s.dir)
	var asked atomic.Value
	reg.blobs(func(w http.ResponseWriter, req *http.Request, inner http.Handler) {
		if r := req.Header.Get("Range"); r != "" {
			asked.Store(r)
		}
		inner.ServeHTTP(w, req) // which knows ranges
	})
	if _, err := s.Pull(t.Context(), ref, anonymous, nil); err != nil {
		t.Fatal(err)
	}
	if asked.Load() == nil {
		t.Error("no range was asked for")
	}
}

func TestPullRefusesWhatIsNotWhatItSays(t *testing.T) {
	for what, c := range map[string]struct {
		answer func(body []byte) []byte
		kind   fault.Kind
		says   string
	}{
		"a blob with a changed byte": {func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, fault.Invalid, "tampered"},
		"a blob that is longer":      {func(b []byte) []byte { return append(b, 'x') }, fault.Invalid, "more than"},
	} {
		t.Run(what, func(t *testing.T) {
			s, reg := open(t), newRegistry(t)
			img := image(t, Host().Architecture, makeTar(t, file("big", noise(100_000))))
			ref := reg.write(t, "app:1", img)
			config, _ := img.ConfigName()
			reg.blobs(func(w http.ResponseWriter, req *http.Request, inner http.Handler) {
				if strings.HasSuffix(req.URL.Path, config.String()) {
					inner.ServeHTTP(w, req)
					return
				}
				rec := httptest.NewRecorder()
				inner.ServeHTTP(rec, req)
				w.Write(c.answer(rec.Body.Bytes()))
			})
			_, err := s.Pull(t.Context(), ref, anonymous, nil)
			wantKind(t, err, c.kind, c.says)
			if left := files(t, s); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestPullRefusesLayersThatAreNotTheConfigurations(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	img := image(t, Host().Architecture, makeTar(t, file("a", "x")))
	c, _ := img.ConfigFile()
	c = c.DeepCopy()
	c.RootFS.DiffIDs[0] = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}
	img, err := mutate.ConfigFile(img, c)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), reg.write(t, "app:1", img), anonymous, nil)
	wantKind(t, err, fault.Invalid, "not what the image says")
	for _, f := range files(t, s) {
		if !strings.HasPrefix(f, downloadDir) {
			t.Errorf("left behind: %s", f)
		}
	}
}

func TestPullErrorsSayWhatToDo(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	_, err := s.Pull(t.Context(), reg.host+"/no/such:1", anonymous, nil)
	wantKind(t, err, fault.Missing, "check the name")
	_, err = s.Pull(t.Context(), "Not A Name", anonymous, nil)
	wantKind(t, err, fault.Invalid, "lower-case")
	_, err = s.Pull(t.Context(), "127.0.0.1:1/app", anonymous, nil)
	wantKind(t, err, fault.Busy, "check the network")
	reg.through(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
	})
	_, err = s.Pull(t.Context(), reg.host+"/app:1", anonymous, nil)
	wantKind(t, err, fault.Denied, "docker login")
}

func TestPullLogsIn(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	ref := reg.write(t, "private:1", image(t, Host().Architecture, makeTar(t, file("a", "x"))))
	reg.through(func(inner http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if user, pass, ok := req.BasicAuth(); !ok || user != "me" || pass != "secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			inner.ServeHTTP(w, req)
		})
	})
	for login, works := range map[Login]bool{{}: false, {Username: "me", Password: "wrong"}: false, {Username: "me", Password: "secret"}: true} {
		_, err := s.Pull(t.Context(), ref, PullOptions{Keychain: login}, nil)
		if works && err != nil || !works && !fault.Is(err, fault.Denied) {
			t.Errorf("%+v: %v", login, err)
		}
		if err != nil && strings.Contains(err.Error(), "wrong") {
			t.Errorf("the password is in %q", err)
		}
	}
	if err := s.Push(t.Context(), ref, reg.host+"/copy:1", PushOptions{Keychain: Login{Username: "me", Password: "secret"}}, nil); err != nil {
		t.Error(err)
	}
}

// written is a manifest as a test writes it.
type written []byte

func (m written) RawManifest() ([]byte, error)        { return m, nil }
func (m written) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

// blobOf returns the descriptor of an image's first layer.
func blobOf(t testing.TB, img v1.Image) v1.Descriptor {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return m.Layers[0]
}

func TestAnImageWithAWrongSizeSpoilsNoOther(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	big := makeTar(t, file("big", noise(1<<20)))
	img := image(t, Host().Architecture, big, makeTar(t, file("b", "2")))
	ref := reg.write(t, "app:1", img)
	first := blobOf(t, img)
	liar := image(t, Host().Architecture, big)
	reg.write(t, "liar:1", liar)
	raw, err := liar.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	lies := strings.Replace(string(raw), fmt.Sprint(first.Size), "10", 1)
	lying := reg.put(t, "liar:2", written(lies))

	come, asked, through := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var firsts atomic.Int32
	second := must(img.Manifest()).Layers[1].Digest.String()
	reg.blobs(func(w http.ResponseWriter, req *http.Request, inner http.Handler) {
		switch filepath.Base(req.URL.Path) {
		case second: // the honest pull waits with a whole first layer
			<-asked
		case first.Digest.String():
			if firsts.Add(1) == 2 {
				close(asked)
				<-through
			}
		}
		inner.ServeHTTP(w, req)
	})
	liars := make(chan error)
	go func() {
		<-come
		_, err := s.Pull(t.Context(), lying, anonymous, nil)
		liars <- err
	}()
	tm, err := s.Pull(t.Context(), ref, anonymous, func(p Progress) {
		if p.Step == "download" && p.Done == first.Size {
			close(come)
		}
	})
	close(through)
	if err != nil {
		t.Errorf("the other image: %v", err)
	}
	wantKind(t, <-liars, fault.Invalid, "more than the 10 bytes")
	if digest, _, err := digestFile(t.Context(), s.blobPath(first.Digest.String())); digest != first.Digest.String() {
		t.Errorf("blob %s is %s, %v", first.Digest, digest, err)
	}
	if err := s.Push(t.Context(), tm.ID, reg.host+"/copy:1", anonymous, nil); err != nil {
		t.Error(err)
	}
}

func TestADamagedBlobIsToldAndPulledAgain(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	img := image(t, Host().Architecture, makeTar(t, file("big", noise(100_000))))
	ref := reg.write(t, "app:1", img)
	if _, err := s.Pull(t.Context(), ref, anonymous, nil); err != nil {
		t.Fatal(err)
	}
	blob := s.blobPath(blobOf(t, img).Digest.String())
	if err := os.Truncate(blob, 10); err != nil {
		t.Fatal(err)
	}
	wantKind(t, s.Push(t.Context(), ref, reg.host+"/copy:1", anonymous, nil), fault.Unable, "damaged", "fetch it again")
	wantKind(t, s.Export(t.Context(), ref, io.Discard, nil), fault.Unable, "damaged", "fetch it again")
	if _, err := s.Pull(t.Context(), ref, anonymous, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Push(t.Context(), ref, reg.host+"/copy:1", anonymous, nil); err != nil {
		t.Error(err)
	}
}

func TestPullsOfTheSameAtOnce(t *testing.T) {
	s, reg := open(t), newRegistry(t)
	layer := makeTar(t, file("big", noise(1<<20)))
	one := reg.write(t, "one:1", image(t, Host().Architecture, layer, makeTar(t, file("x", "1"))))
	two := reg.write(t, "two:1", image(t, Host().Architecture, layer, makeTar(t, file("x", "2"))))
	var fetched sync.Map
	var doubled atomic.Int32
	reg.blobs(func(w http.ResponseWriter, req *http.Request, inner http.Handler) {
		if _, again := fetched.LoadOrStore(filepath.Base(req.URL.Path), true); again {
			doubled.Add(1)
		}
		inner.ServeHTTP(w, req)
	})
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() { _, errs[i] = s.Pull(t.Context(), []string{one, two}[i%2], anonymous, nil) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("pull %d: %v", i, err)
		}
	}
	if n := doubled.Load(); n > 4 { // the configurations, which are read by each
		t.Errorf("%d blobs were fetched again", n)
	}
	if n := len(s.List()); n != 2 {
		t.Errorf("%d templates", n)
	}
	entries, _ := os.ReadDir(filepath.Join(s.dir, workDir))
	if downloads, _ := os.ReadDir(filepath.Join(s.dir, downloadDir)); len(entries)+len(downloads) != 0 {
		t.Errorf("left behind: %v %v", entries, downloads)
	}
}
