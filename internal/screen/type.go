package screen

import (
	"context"
	"slices"
	"time"

	"github.com/strata-project/strata/internal/fault"
)

// Bounds of the pace at which keys follow one another, and what it is where nobody
// says. A PS/2 keyboard keeps 16 bytes and a BIOS 16 keys for who is busy, and
// what comes then is lost.
const (
	MinPace     = 5 * time.Millisecond
	DefaultPace = 50 * time.Millisecond
	MaxPace     = 2 * time.Second
)

// Type types text on a US keyboard, a key each pace (0: DefaultPace). Nothing is
// typed where a character cannot be. Kinds: Invalid, Unable, Busy where ctx ends
// before everything is typed.
func (s *Screen) Type(ctx context.Context, text string, pace time.Duration) error {
	chords, err := chordsOf(text)
	if err != nil {
		return err
	}
	return s.press(ctx, chords, pace)
}

// Press presses keys one after another, as Type does. Each is a name, a character,
// or several names with dashes, which are held together: f2, a, ctrl-alt-delete.
func (s *Screen) Press(ctx context.Context, keys []string, pace time.Duration) error {
	chords, err := parseChords(keys)
	if err != nil {
		return err
	}
	return s.press(ctx, chords, pace)
}

func (s *Screen) press(ctx context.Context, chords []chord, pace time.Duration) error {
	if pace == 0 {
		pace = DefaultPace
	}
	if pace < MinPace || pace > MaxPace {
		return fault.Invalidf("a pace of %v cannot be typed at", pace).At("pace").Help("%v to %v is accepted", MinPace, MaxPace)
	}
	select {
	case s.keyboard <- struct{}{}:
		defer func() { <-s.keyboard }()
	case <-ctx.Done():
		return fault.Busyf("somebody else is typing: %w", ctx.Err())
	}
	beat := time.NewTicker(pace)
	defer beat.Stop()
	for i, c := range chords {
		if i > 0 {
			select {
			case <-beat.C:
			case <-ctx.Done():
				return fault.Busyf("%d of %d keys were pressed: %w", i, len(chords), ctx.Err())
			}
		}
		if err := s.strike(ctx, c, pace/3); err != nil {
			return fault.Wrap(err, "press key %d of %d", i+1, len(chords))
		}
	}
	return nil
}

// strike presses the keys of a chord, holds them, and lets them go, whether or not
// ctx has ended by then: a key that stays down would repeat.
func (s *Screen) strike(ctx context.Context, c chord, hold time.Duration) error {
	err := s.send(ctx, c, true)
	if err == nil {
		held := time.NewTimer(hold)
		defer held.Stop()
		select {
		case <-held.C:
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanup)
	defer cancel()
	up := slices.Clone(c)
	slices.Reverse(up)
	return fault.Join(err, s.send(ctx, up, false))
}

// Source: QEMU, qapi/ui.json, InputEvent.
type (
	inputEvent struct {
		Type string   `json:"type"`
		Data keyEvent `json:"data"`
	}
	keyEvent struct {
		Down bool     `json:"down"`
		Key  keyValue `json:"key"`
	}
	keyValue struct {
		Type string `json:"type"`
		Data string `json:"data"`
	}
)

func (s *Screen) send(ctx context.Context, keys []string, down bool) error {
	var events []inputEvent
	for _, key := range keys {
		events = append(events, inputEvent{"key", keyEvent{down, keyValue{"qcode", key}}})
	}
	return s.monitor.Execute(ctx, "input-send-event", map[string]any{"events": events}, nil)
}
