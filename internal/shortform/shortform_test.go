package shortform

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/fault"
)

func TestPort(t *testing.T) {
	for text, want := range map[string][]api.Port{
		"8080:80":             {{HostPort: 8080, Port: 80}},
		"1:65535/udp":         {{HostPort: 1, Port: 65535, Protocol: "udp"}},
		"127.0.0.1:53:5353":   {{HostIP: "127.0.0.1", HostPort: 53, Port: 5353}},
		"[::1]:80:80/tcp":     {{HostIP: "::1", HostPort: 80, Port: 80, Protocol: "tcp"}},
		"8000-8001:9000-9001": {{HostPort: 8000, Port: 9000}, {HostPort: 8001, Port: 9001}},
	} {
		if got, err := Port(text); err != nil || !cmp.Equal(got, want) {
			t.Errorf("Port(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "80", ":80", "80:", "0:80", "80:0", "65536:1", "a:b", "1:2/sctp", "::1:80:80", "[127.0.0.1]:1:1", "1.2.3:1:1",
		"1-3:1-2", "1-5000:1-5000", "+1:2", "-1:2", "3-1:3-1", "[::1%lo]:1:1", "1:2/", "[::1:1:1"} {
		if got, err := Port(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("Port(%q) = %+v, %v; want an invalid fault", text, got, err)
		}
	}
}

func FuzzPort(f *testing.F) {
	for _, seed := range []string{"8080:80", "[::1]:1-2:3-4/udp", "127.0.0.1:1:1", "1-65535:1-65535"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Port(text)
		if err != nil {
			return
		}
		if len(all) == 0 || len(all) > MaxRange {
			t.Fatalf("%q gives %d ports", text, len(all))
		}
		for _, p := range all {
			again, err := Port(portText(p))
			if err != nil || len(again) != 1 || again[0] != p {
				t.Errorf("%+v of %q reads back as %+v, %v", p, text, again, err)
			}
		}
	})
}

func TestVolume(t *testing.T) {
	for text, want := range map[string]api.Volume{
		"/a:/b":        {Source: "/a", Target: "/b"},
		"/a/../c:/b":   {Source: "/c", Target: "/b"},
		"./a:/b:ro":    {Source: "/here/a", Target: "/b", ReadOnly: true},
		"..:/b:rw":     {Source: "/", Target: "/b"},
		"/a b:/c d:ro": {Source: "/a b", Target: "/c d", ReadOnly: true},
	} {
		if got, err := Volume(text, "/here"); err != nil || got != want {
			t.Errorf("Volume(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "/a", "a:/b", ":/b", "/a:", "/a:b", "/a:/b:rx", "/a:/b:ro:x", "/a:/b:"} {
		if got, err := Volume(text, "/here"); !fault.Is(err, fault.Invalid) {
			t.Errorf("Volume(%q) = %+v, %v; want an invalid fault", text, got, err)
		}
	}
}

func FuzzVolume(f *testing.F) {
	f.Add("/a:/b:ro")
	f.Add("./x:/y")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Volume(text, "/here")
		if err != nil {
			return
		}
		if !filepath.IsAbs(v.Source) || !strings.HasPrefix(v.Target, "/") {
			t.Errorf("%q gives %+v", text, v)
		}
		mode := "rw"
		if v.ReadOnly {
			mode = "ro"
		}
		if again, err := Volume(v.Source+":"+v.Target+":"+mode, "/"); err != nil || again != v {
			t.Errorf("%+v reads back as %+v, %v", v, again, err)
		}
	})
}

func TestTmpfs(t *testing.T) {
	for text, want := range map[string]api.Tmpfs{
		"/t":                   {Target: "/t"},
		"/t:size=64M":          {Target: "/t", Size: 64 << 20},
		"/t:mode=1777,size=1G": {Target: "/t", Size: 1 << 30, Mode: 0o1777},
	} {
		if got, err := Tmpfs(text); err != nil || got != want {
			t.Errorf("Tmpfs(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "t", "/t:x", "/t:size=", "/t:mode=9", "/t:mode=77777", "/t:size=1M,,", "/t:size=0"} {
		if got, err := Tmpfs(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("Tmpfs(%q) = %+v, %v; want an invalid fault", text, got, err)
		}
	}
}

func FuzzTmpfs(f *testing.F) {
	f.Add("/t:size=64M,mode=1777")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Tmpfs(text)
		if err != nil || strings.Contains(v.Target, ":") {
			return
		}
		if again, err := Tmpfs(fmt.Sprintf("%s:size=%d,mode=%o", v.Target, v.Size, v.Mode)); err != nil || again != v {
			t.Errorf("%+v reads back as %+v, %v", v, again, err)
		}
	})
}

func TestRestart(t *testing.T) {
	for text, want := range map[string]api.Restart{
		"no": {Policy: "no"}, "always": {Policy: "always"}, "on-failure": {Policy: "on-failure"}, "on-failure:3": {Policy: "on-failure", Max: 3},
	} {
		if got, err := Restart(text); err != nil || got != want {
			t.Errorf("Restart(%q) = %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "never", "always:3", "on-failure:", "on-failure:-1", "on-failure:9999999"} {
		if got, err := Restart(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("Restart(%q) = %+v, %v; want an invalid fault", text, got, err)
		}
	}
}

// portText writes a port as it is read.
func portText(p api.Port) string {
	text := fmt.Sprintf("%d:%d", p.HostPort, p.Port)
	if strings.Contains(p.HostIP, ":") {
		text = "[" + p.HostIP + "]:" + text
	} else if p.HostIP != "" {
		text = p.HostIP + ":" + text
	}
	if p.Protocol != "" {
		text += "/" + p.Protocol
	}
	return text
}
