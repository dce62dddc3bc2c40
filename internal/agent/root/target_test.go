package root

import (
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	for path, want := range map[string]string{
		"/": "", "": "", "/a/b": "a b", "a//b/": "a b", "/a/../b": "b", "/../../x": "x", "/./a/.": "a",
	} {
		if got := strings.Join(clean(path), " "); got != want {
			t.Errorf("clean(%q) = %q; want %q", path, got, want)
		}
	}
}
