package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/kernel/internal/synth"
	"github.com/strata-project/strata/internal/require"
)

// mirror is a distribution's archive with one kernel, and apt is told of no other.
type mirror struct {
	*httptest.Server
	name, file string // of the kernel's package
	data       []byte
	gets       atomic.Int32 // how often the package was asked for
	from       atomic.Value // string: the Range of the last time
	cut        atomic.Int32 // so many answers end after half of it
	gone       atomic.Bool  // the package is not there
	held       atomic.Bool  // half of it is sent, and no more
}

const metapackage = "linux-image-cloud-"

func newMirror(t *testing.T) *mirror {
	t.Helper()
	require.Tool(t, "apt-get")
	require.Tool(t, "apt-cache")
	// Large enough that apt has taken some of it when it is cut.
	files := append(distribution(t), synth.File{Path: "usr/share/doc/filler", Data: bytes.Repeat([]byte("0123456789abcdef"), 64<<10)})
	m := &mirror{name: imagePrefix + synth.Release, data: synth.Package("data.tar", synth.Tar(files...))}
	m.file = m.name + "_6.1.0-1_" + runtime.GOARCH + ".deb"
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	m.tellApt(t, "trusted=yes")
	return m
}

func (m *mirror) packages() []byte {
	entry := "Package: %s\nVersion: %s\nArchitecture: " + runtime.GOARCH + "\nMaintainer: nobody <nobody@localhost>\nDescription: test\n"
	text := fmt.Sprintf(entry+"Depends: %s\nFilename: ./meta.deb\nSize: 1\nSHA256: %064d\n\n", metapackage+runtime.GOARCH, "1", m.name, 0)
	return fmt.Appendf([]byte(text), entry+"Filename: ./%s\nSize: %d\nSHA256: %x\n\n", m.name, "6.1.0-1", m.file, len(m.data), sha256.Sum256(m.data))
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch filepath.Base(r.URL.Path) {
	case "Packages":
		http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(m.packages()))
	case m.file:
		m.gets.Add(1)
		m.from.Store(r.Header.Get("Range"))
		switch {
		case m.gone.Load():
			http.NotFound(w, r)
		case m.held.Load() || m.cut.Add(-1) >= 0:
			w.Header().Set("Content-Length", fmt.Sprint(len(m.data)))
			w.Header().Set("Last-Modified", time.Unix(1, 0).UTC().Format(http.TimeFormat))
			w.Write(m.data[:len(m.data)/2])
			w.(http.Flusher).Flush()
			if !m.held.Load() {
				panic(http.ErrAbortHandler)
			}
			<-r.Context().Done()
		default:
			http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(m.data))
		}
	default:
		http.NotFound(w, r)
	}
}

// tellApt has apt know the mirror's lists and nothing else.
func (m *mirror) tellApt(t *testing.T, option string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "apt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := fmt.Sprintf(`Dir "%s"; Dir::State::status "%s/status"; Dir::Etc::sourcelist "%s/sources.list"; Dir::Etc::sourceparts "-";
Dir::Bin::methods "/usr/lib/apt/methods"; APT::Architecture "%s"; APT::Sandbox::User ""; Acquire::Languages "none"; Acquire::http::Proxy "DIRECT"; Acquire::Retries::Delay "false";
`, dir, dir, dir, runtime.GOARCH)
	for name, content := range map[string]string{
		"status": "", "sources.list": "deb [" + option + "] " + m.URL + "/ ./\n", "conf": text,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, one := range []string{"var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/apt/preferences.d", "etc/apt/apt.conf.d"} {
		if err := os.MkdirAll(filepath.Join(dir, one), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", filepath.Join(dir, "conf"))
	for _, name := range []string{"http_proxy", "https_proxy", "HTTP_PROXY"} {
		t.Setenv(name, "")
	}
	if text, err := exec.Command("apt-get", "-q", "update").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// steps notes progress.
type steps struct {
	mu   sync.Mutex
	seen []Progress
}

func (s *steps) note(p Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, p)
}

func downloading(t *testing.T, s *Store) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.dir, downloadDir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func eventually(is func() bool) bool {
	for end := time.Now().Add(require.Patience(30 * time.Second)); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if is() {
			return true
		}
	}
	return false
}

func TestDebiansKernelComesFromTheMirror(t *testing.T) {
	m, s := newMirror(t), open(t)
	var told steps
	k, err := s.Add(t.Context(), AddOptions{Source: "debian"}, told.note)
	if err != nil {
		t.Fatal(err)
	}
	if k.Name != synth.Release || k.Source != "debian" || k.Origin != strings.TrimSuffix(m.file, ".deb") {
		t.Errorf("it is %+v", k)
	}
	var all []string
	for _, p := range told.seen {
		if len(all) == 0 || all[len(all)-1] != p.Step {
			all = append(all, p.Step)
		}
	}
	if got := strings.Join(all, " "); !strings.HasPrefix(got, "find download unpack") {
		t.Errorf("steps are %q", got)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, downloadDir)); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestADownloadThatWasBrokenOffIsGoneOnWith(t *testing.T) {
	m, s := newMirror(t), open(t)
	m.held.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := s.Add(ctx, AddOptions{Source: "debian"}, nil)
		failed <- err
	}()
	if !eventually(func() bool {
		for _, path := range downloading(t, s) {
			if info, err := os.Stat(path); err == nil && info.Size() >= int64(len(m.data)/4) {
				return true
			}
		}
		return false
	}) {
		t.Error("no half of the package came")
	}
	cancel()
	if err := <-failed; err == nil {
		t.Fatal("it was added")
	}
	m.held.Store(false)
	// Another daemon goes on with it, and what a day old is, nobody does.
	old := filepath.Join(s.dir, downloadDir, "linux-image-old")
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-2 * resumeFor)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	s, err := Open(s.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("what nobody went on with is still there")
	}
	if _, err := s.Add(t.Context(), AddOptions{Source: "debian"}, nil); err != nil {
		t.Fatal(err)
	}
	if from, _ := m.from.Load().(string); !strings.HasPrefix(from, "bytes=") || strings.HasPrefix(from, "bytes=0-") {
		t.Errorf("it was asked for from %q on", from)
	}
	if left := downloading(t, s); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}

func TestAnArchiveWithoutASignatureIsRefused(t *testing.T) {
	m, s := newMirror(t), open(t)
	m.tellApt(t, "allow-insecure=yes")
	if k, err := s.Add(t.Context(), AddOptions{Source: "debian"}, nil); !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "authenticated") {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestALineThatIsCutOnceIsTriedAgain(t *testing.T) {
	m, s := newMirror(t), open(t)
	m.cut.Store(1)
	if _, err := s.Add(t.Context(), AddOptions{Source: "debian"}, nil); err != nil {
		t.Fatal(err)
	}
	if n := m.gets.Load(); n < 2 {
		t.Errorf("it was asked for %d times", n)
	}
}

func TestAMirrorThatHasItNotIsSaid(t *testing.T) {
	m, s := newMirror(t), open(t)
	m.gone.Store(true)
	_, err := s.Add(t.Context(), AddOptions{Source: "debian"}, nil)
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "cannot be downloaded") || !strings.Contains(fault.All(err)[0].Hint, "apt-get update") {
		t.Errorf("error is %v", err)
	}
	m.Close() // as without a network
	_, err = s.Add(t.Context(), AddOptions{Source: "debian"}, nil)
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "Could not connect") {
		t.Errorf("error is %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, downloadDir)); len(left) != 0 {
		t.Errorf("left are %v", left)
	}
}
