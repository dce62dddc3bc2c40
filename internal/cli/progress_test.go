package cli

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/vbauerster/mpb/v8/decor"

	"github.com/strata-project/strata/api"
)

const aDigest = "sha256:411e41458d2e0000000000000000000000000000000000000000000000000000"

func TestProgressInWords(t *testing.T) {
	for _, c := range []struct {
		p    api.Progress
		want string
	}{
		{api.Progress{Step: "download", Item: aDigest, Done: 5, Total: 10}, "download 411e41458d2e 50%"},
		{api.Progress{Step: "push", Item: "registry.example.org:5000/team/mine:1", Done: 1, Total: 4}, "push registry.example.org:5000/team/mine:1 25%"},
		{api.Progress{Step: "import", Item: "import", Done: 2048}, "import 2K"},
		{api.Progress{Step: "build", Item: "I: running apt-get update..."}, "build I: running apt-get update..."},
		{api.Progress{Step: "build", Item: "evil\x1b[2J"}, "build evil?[2J"},
	} {
		if got := progressText(c.p); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.p, got, c.want)
		}
	}
}

func TestWithoutATerminalThereIsALineForEachStep(t *testing.T) {
	var out bytes.Buffer
	l := &lines{out: &out, seen: map[string]bool{}}
	for _, p := range []api.Progress{
		{Step: "download", Item: aDigest, Done: 0, Total: 3 << 20},
		{Step: "download", Item: aDigest, Done: 1 << 20, Total: 3 << 20},
		{Step: "import", Item: "import", Done: 1},
		{Step: "build", Item: "I: running apt-get update..."},
		{Step: "build", Item: "Get:1 http://deb.debian.org/debian bookworm InRelease"},
		{Step: "build", Item: "Reading package lists..."},
		{Step: "build", Item: "W: something odd"},
	} {
		l.progress(p)
	}
	l.told = time.Now().Add(-time.Minute)
	l.progress(api.Progress{Step: "build", Item: "Setting up perl"})
	want := "download 411e41458d2e (3M)\nimport\nbuild: running apt-get update\nbuild: W: something odd\nbuild: Setting up perl\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestBarsAlwaysEnd covers work that is done before its progress says so.
func TestBarsAlwaysEnd(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, well := range []bool{true, false} {
		b := newBars(null)
		b.progress(api.Progress{Step: "import", Item: "a.tar", Done: 1, Total: 10})
		b.progress(api.Progress{Step: "download", Item: aDigest, Done: 10, Total: 10})
		b.progress(api.Progress{Step: "export", Item: "x"})
		b.progress(api.Progress{Step: "build", Item: "I: unpacking"})
		ended := make(chan struct{})
		go func() { b.end(well); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("well %v: the bars wait for ever", well)
		}
	}
}

func TestABuildShowsItsStepAndTheLastLine(t *testing.T) {
	var v buildView
	var none decor.Statistics
	v.take("I: installing packages...")
	v.take("Setting up perl\x1b[2J")
	if got := v.text(none); got != "installing packages: Setting up perl?[2J" {
		t.Errorf("got %q", got)
	}
	v.take("I: cleaning up...")
	if got := v.text(none); got != "cleaning up" {
		t.Errorf("got %q", got)
	}
}
