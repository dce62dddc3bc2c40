package servertest

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/strata-project/strata/api"
	"github.com/strata-project/strata/internal/engine"
	"github.com/strata-project/strata/internal/fault"
)

// Screen implements server.Screens.
func (e *Engine) Screen(_ context.Context, ref string) (engine.Screen, error) {
	r, err := e.get(ref)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.Screens[r.env.Name]
	switch {
	case !ok:
		return nil, fault.Unablef("a zone has no screen, and %s is one", r.env.Name).Help("a machine has one: use --stratum machine")
	case r.env.State != api.Running:
		return nil, fault.Conflictf("%s is %s, not running", r.env.Name, r.env.State).Help("start it first")
	}
	return s, nil
}

// Screen shows a prompt, and what is typed. To a viewer it says Greeting, and
// then again what the viewer says.
type Screen struct {
	mu    sync.Mutex
	typed string
}

// Greeting is what a viewer reads first.
const Greeting = "RFB 003.008\n"

// PNG implements engine.Screen: a picture of 4 by 2 dots.
func (s *Screen) PNG(context.Context) ([]byte, error) {
	var out bytes.Buffer
	err := png.Encode(&out, image.NewGray(image.Rect(0, 0, 4, 2)))
	return out.Bytes(), err
}

// Text implements engine.Screen; once "graphics" was typed it is none.
func (s *Screen) Text(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Contains(s.typed, "graphics") {
		return "", fault.Unablef("the screen is graphical").Help("take a picture of it instead: strata screen NAME")
	}
	return "boot: " + s.typed + "\n", nil
}

// Wait implements engine.Screen.
func (s *Screen) Wait(ctx context.Context, pattern *regexp.Regexp) (string, []string, error) {
	for {
		text, _ := s.Text(ctx)
		if m := pattern.FindStringSubmatch(text); m != nil {
			return text, m, nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return "", nil, fault.Busyf("the screen does not match %q: it says %s", pattern, text)
		}
	}
}

// Type implements engine.Screen.
func (s *Screen) Type(_ context.Context, text string, _ time.Duration) error {
	if strings.Contains(text, "ä") {
		return fault.Invalidf("'ä' is not on a US keyboard").At("text")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.typed += text
	return nil
}

// Press implements engine.Screen.
func (s *Screen) Press(ctx context.Context, keys []string, pace time.Duration) error {
	for _, key := range keys {
		if err := s.Type(ctx, "<"+key+">", pace); err != nil {
			return err
		}
	}
	return nil
}

// Connect implements engine.Screen.
func (s *Screen) Connect(context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		_, _ = io.WriteString(theirs, Greeting)
		_, _ = io.Copy(theirs, theirs)
	}()
	return ours, nil
}
