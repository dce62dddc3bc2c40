package screen

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// How long Wait lets pass between two looks: at first, and at most.
const (
	firstLook = 100 * time.Millisecond
	lastLook  = time.Second
)

// Wait looks at the screen until its text matches, and returns the text and what of
// it matched: all of it, and then each group. A screen that is graphical is waited
// for as well. Kinds: Busy where ctx ends first, with what was last to be read; else
// as Text's.
func (s *Screen) Wait(ctx context.Context, pattern *regexp.Regexp) (text string, match []string, err error) {
	pause := firstLook
	seen := "nothing was read"
	for {
		g, size, err := s.look(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return "", nil, err
		case err != nil: // the last look was cut off
		case !g.text(size):
			seen = graphical(size).Error()
		default:
			text := g.String()
			if m := pattern.FindStringSubmatch(text); m != nil {
				return text, m, nil
			}
			seen = "it says " + tail(text)
		}
		select {
		case <-time.After(pause):
			pause = min(pause*3/2, lastLook)
		case <-ctx.Done():
			return "", nil, fault.Busyf("the screen does not match %q: %s", strings.TrimPrefix(pattern.String(), "(?m)"), seen).Help("look at it: strata screen NAME")
		}
	}
}

// tail is the end of a screen's text, for a message.
func tail(text string) string {
	const most = 5
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return "nothing"
	}
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
