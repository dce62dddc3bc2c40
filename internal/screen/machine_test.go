package screen_test

import (
	"bytes"
	"context"
	"image/png"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/strata-project/strata/internal/fault"
	"github.com/strata-project/strata/internal/screen/screentest"
)

func TestTheFirmwaresWordsAreRead(t *testing.T) {
	s, ctx := screentest.Boot(t, nil)
	text, match, err := s.Wait(ctx, regexp.MustCompile(`(?m)^(No bootable) device`))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(text, "SeaBIOS (version ") || match[1] != "No bootable" {
		t.Errorf("read %q, and matched %q", text, match)
	}
	file, err := s.PNG(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := png.Decode(bytes.NewReader(file))
	if err != nil || p.Bounds().Dx() != 720 || p.Bounds().Dy() != 400 {
		t.Errorf("the picture: %v, %v", p, err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, _, err = s.Wait(short, regexp.MustCompile("login:"))
	if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "No bootable device") {
		t.Errorf("what is never shown: %v", err)
	}
}

func TestEveryCharacterIsReadInEveryTextMode(t *testing.T) {
	for mode, set := range map[string][][]byte{"80x25": {screentest.Text80}, "40x25": {screentest.Text40}, "80x50": {screentest.Text80, screentest.Small}, "a font of its own": {screentest.Text80, screentest.Odd}} {
		t.Run(mode, func(t *testing.T) {
			s, ctx := screentest.Boot(t, screentest.Sector(screentest.OddGlyph, append(set, screentest.Table)...))
			text, _, err := s.Wait(ctx, regexp.MustCompile("0123456789"))
			if err != nil {
				t.Fatal(err)
			}
			for _, part := range []string{"☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼", "?@ABC", "abcdefghijklmnopqrstuvwxyz{|}~⌂Çü", "╬╧╨╤╥╙╘╒╓╫╪┘┌", "αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈"} {
				if !strings.Contains(strings.ReplaceAll(text, "\n", ""), part) {
					t.Errorf("%s is not read in\n%s", part, text)
				}
			}
		})
	}
}

func TestAGraphicalScreenIsNoText(t *testing.T) {
	s, ctx := screentest.Boot(t, screentest.Sector(nil, screentest.Dots))
	for {
		text, err := s.Text(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %q, %v", text, err)
		}
		if fault.Is(err, fault.Unable) && strings.Contains(err.Error(), "graphical, 640 by 400") {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func TestWhatIsTypedArrives(t *testing.T) {
	s, ctx := screentest.Boot(t, screentest.Sector(nil, screentest.Echo))
	if _, _, err := s.Wait(ctx, regexp.MustCompile(`^\n*$`)); err != nil { // the firmware's words are gone
		t.Fatal(err)
	}
	const text = "The quick brown fox, 0123456789!\n~`@#$%^&*()_+-={}[]|\\:\";'<>?,./"
	if err := s.Type(ctx, text, 0); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if _, _, err := s.Wait(ctx, regexp.MustCompile("(?m)^"+regexp.QuoteMeta(strings.TrimSpace(line))+"$")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Press(ctx, []string{"enter", "o", "K", "shift-1"}, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Wait(ctx, regexp.MustCompile("(?m)^oK!$")); err != nil {
		t.Fatal(err)
	}
	// What is refused is not typed in part.
	if err := s.Type(ctx, "xyzä", 0); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "'ä', character 4") {
		t.Errorf("a letter that is not on the keyboard: %v", err)
	}
	if now, err := s.Text(ctx); err != nil || strings.Contains(now, "xyz") {
		t.Errorf("now it says %q, %v", now, err)
	}
	if err := s.Press(ctx, []string{"ctrl-alt-delete"}, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Wait(ctx, regexp.MustCompile("SeaBIOS|^\n*$")); err != nil { // it starts over
		t.Fatal(err)
	}
}

func TestViewersComeByDescriptor(t *testing.T) {
	s, ctx := screentest.Boot(t, nil)
	for range 2 { // several at a time
		conn, err := s.Connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(screentest.Patience))
		expect(t, conn, "RFB 003.008\n")
		say(t, conn, "RFB 003.008\n")
		expect(t, conn, "\x01\x01") // one type of security: none
		say(t, conn, "\x01")
		expect(t, conn, "\x00\x00\x00\x00")
		say(t, conn, "\x01")
		if size := expect(t, conn, ""); size[0] == 0 && size[1] == 0 {
			t.Errorf("the screen's size is %v", size)
		}
	}
}

func expect(t *testing.T, r io.Reader, want string) []byte {
	t.Helper()
	got := make([]byte, max(len(want), 4))
	if want != "" {
		got = got[:len(want)]
	}
	if _, err := io.ReadFull(r, got); err != nil || want != "" && string(got) != want {
		t.Fatalf("it says %q, %v; want %q", got, err, want)
	}
	return got
}

func say(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}
