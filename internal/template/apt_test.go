package template

import (
	"testing"
	"testing/fstest"
)

func TestHostMirror(t *testing.T) {
	for name, c := range map[string]struct {
		path, text, want string
	}{
		"one-line format":                {"etc/apt/sources.list", "# x\ndeb-src http://no/debian x\ndeb http://mirror.example/debian bookworm main\n", "http://mirror.example/debian"},
		"one-line format with options":   {"etc/apt/sources.list.d/a.list", "deb [arch=amd64 signed-by=/x] https://mirror.example/pub/debian/ bookworm main\n", "https://mirror.example/pub/debian/"},
		"deb822 format":                  {"etc/apt/sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n", "http://mirror.example/debian"},
		"a default mirror is left to it": {"etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main\n", ""},
		"another distribution's":         {"etc/apt/sources.list", "deb http://archive.example/ubuntu noble main\n", ""},
		"one with a password stays":      {"etc/apt/sources.list", "deb http://me:secret@mirror.example/debian bookworm main\n", ""},
		"a file that is none of apt's":   {"etc/apt/other", "deb http://mirror.example/debian bookworm main\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := hostMirror(fstest.MapFS{c.path: {Data: []byte(c.text)}}, "debian"); got != c.want {
				t.Errorf("mirror is %q, want %q", got, c.want)
			}
		})
	}
}
