package stratum

import (
	"context"
	"net"
	"regexp"
	"time"
)

// Screener has a screen and a keyboard.
type Screener interface {
	// Screen returns the run's screen; asking costs nothing.
	Screen() Screen
}

// Screen is the screen and the keyboard of a run. It is safe for concurrent use.
// Kinds of all: Unable where it is not done, Busy where ctx ends first.
type Screen interface {
	// PNG returns what it shows as a file.
	PNG(ctx context.Context) ([]byte, error)
	// Text returns what is written on it. Unable where it is graphical.
	Text(ctx context.Context) (string, error)
	// Wait waits until the text matches, and returns it with what matched.
	Wait(ctx context.Context, pattern *regexp.Regexp) (text string, match []string, err error)
	// Type types text, a key each pace (0: as it is usual). Invalid where a
	// character cannot be typed; then nothing is.
	Type(ctx context.Context, text string, pace time.Duration) error
	// Press presses keys by name, as Type does.
	Press(ctx context.Context, keys []string, pace time.Duration) error
	// Connect returns a connection that speaks RFB and asks for no password.
	Connect(ctx context.Context) (net.Conn, error)
}
