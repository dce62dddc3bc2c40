package web

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

func TestWhatOthersWroteIsUnchanged(t *testing.T) {
	sums, err := os.Open("third_party/novnc.sums")
	if err != nil {
		t.Fatal(err)
	}
	defer sums.Close()
	want := map[string]string{}
	for lines := bufio.NewScanner(sums); lines.Scan(); {
		if sum, name, ok := strings.Cut(lines.Text(), "  "); ok && !strings.HasPrefix(sum, "#") {
			want["third_party/novnc/"+name] = sum
		}
	}
	err = fs.WalkDir(files, "third_party", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(files, name)
		sum := sha256.Sum256(content)
		if got := hex.EncodeToString(sum[:]); got != want[name] {
			t.Errorf("%s has the checksum %s, not %q: see scripts/novnc", name, got, want[name])
		}
		delete(want, name)
		return err
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%v, and these are missing: %v", err, want)
	}
}

var imported = regexp.MustCompile(`(?m)^\s*(?:import|export)\s[^'"\n]*['"](\.[^'"]+)['"]|^\} from ['"](\.[^'"]+)['"]`)

// TestAllThatThePageLoadsIsServed follows the page's links and modules.
func TestAllThatThePageLoadsIsServed(t *testing.T) {
	mux := http.NewServeMux()
	Route(mux)
	get := func(at string) (string, *http.Response) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("GET", at, nil))
		return w.Body.String(), w.Result()
	}
	page, answer := get("/console/win")
	if answer.StatusCode != 200 || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/html") {
		t.Fatalf("the page: %v", answer)
	}
	var todo []string
	for _, m := range regexp.MustCompile(`(?:src|href)="(-/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		todo = append(todo, "/console/"+m[1])
	}
	seen := map[string]bool{}
	for len(todo) > 0 {
		at := todo[0]
		todo = todo[1:]
		if seen[at] {
			continue
		}
		seen[at] = true
		text, answer := get(at)
		h := answer.Header
		if answer.StatusCode != 200 || strings.HasSuffix(at, ".js") && !strings.HasPrefix(h.Get("Content-Type"), "text/javascript") {
			t.Errorf("%s: %d %v", at, answer.StatusCode, h)
		}
		if h.Get("Content-Security-Policy") != policy || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s is not guarded: %v", at, h)
		}
		for _, m := range imported.FindAllStringSubmatch(text, -1) {
			todo = append(todo, path.Join(path.Dir(at), m[1]+m[2]))
		}
	}
	if len(seen) < 40 {
		t.Errorf("only %d files are loaded: %v", len(seen), seen)
	}
	for _, at := range []string{"/console/-/", "/console/-/third_party/", "/console/-/third_party/novnc/core/", "/console/-/web.go", "/console/-/../../v1"} {
		if _, answer := get(at); answer.StatusCode == 200 {
			t.Errorf("%s is served", at)
		}
	}
}
