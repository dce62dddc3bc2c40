package screen

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/strata-project/strata/internal/fault"
)

// stand is a monitor of a machine that shows a picture and has no font.
type stand struct {
	mu      sync.Mutex
	picture []byte
	refuse  string // the command that is refused
	said    []string
	file    *os.File
}

func (s *stand) Execute(ctx context.Context, command string, args, result any, files ...*os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	text, _ := json.Marshal(args)
	s.said = append(s.said, command+" "+string(text))
	if command == s.refuse {
		return fault.Unablef("QEMU does not do %s: not now", command)
	}
	switch command {
	case "add-fd": // as QEMU does it: the descriptor is its own from here on
		fd, err := unix.Dup(int(files[0].Fd()))
		s.file = os.NewFile(uintptr(fd), "set")
		return err
	case "screendump":
		if err := s.file.Truncate(0); err != nil {
			return err
		}
		_, err := s.file.Write(s.picture)
		return err
	case "remove-fd":
		return s.file.Close()
	case "human-monitor-command":
		var n int
		fmt.Sscanf(args.(map[string]string)["command-line"], "xp /%dxw", &n)
		*result.(*string) = strings.Repeat("00000000: 0x00000000 0x00000000 0x00000000 0x00000000\r\n", n/4)
	case "query-pci":
		return json.Unmarshal([]byte(`[{"devices": []}]`), result)
	}
	return nil
}

func (s *stand) keys() (all []string) {
	for _, one := range s.said {
		for _, m := range regexp.MustCompile(`"down":(true|false),"key":{"type":"qcode","data":"(\w+)"}`).FindAllStringSubmatch(one, -1) {
			all = append(all, map[string]string{"true": "+", "false": "-"}[m[1]]+m[2])
		}
	}
	return all
}

func flat(w, h int, shade byte) []byte {
	return append(fmt.Appendf(nil, "P6\n%d %d\n255\n", w, h), bytes.Repeat([]byte{shade}, w*h*3)...)
}

func TestAPictureIsTakenByDescriptor(t *testing.T) {
	m := &stand{picture: flat(32, 16, 7)}
	file, err := New(m).PNG(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, err := png.Decode(bytes.NewReader(file))
	if err != nil || p.Bounds().Dx() != 32 || p.Bounds().Dy() != 16 {
		t.Errorf("%v, %v", p, err)
	}
	if r, _, _, _ := p.At(3, 3).RGBA(); r>>8 != 7 {
		t.Errorf("the shade is %d", r>>8)
	}
	if last := m.said[len(m.said)-1]; !strings.HasPrefix(last, "remove-fd") {
		t.Errorf("last it said %s", last)
	}
	for _, command := range []string{"add-fd", "screendump"} {
		m := &stand{picture: flat(1, 1, 0), refuse: command, file: os.Stderr}
		if command == "screendump" {
			m.file = nil
		}
		if _, err := New(m).Shot(t.Context()); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), command) {
			t.Errorf("%s refused: %v", command, err)
		}
	}
}

func TestPicturesThatAreRefused(t *testing.T) {
	for sentence, c := range map[string]struct{ ppm, words string }{
		"nothing":                 {"", "no picture"},
		"another format":          {"\x89PNG", "no picture"},
		"no size":                 {"P6\n", "cannot be read"},
		"a comment":               {"P6\n# 1 1\n255\n", "cannot be read"},
		"a size that never ends":  {"P6\n" + strings.Repeat("1", 1000), "cannot be read"},
		"spaces that never end":   {"P6\n" + strings.Repeat(" ", 1000), "cannot be read"},
		"no dots":                 {"P6\n0 1\n255\n", "0 by 1"},
		"a side that is too long": {"P6\n8193 1\n255\n", "8193 by 1"},
		"too many dots":           {"P6\n8192 8192\n255\n", "8192 by 8192"},
		"other shades":            {"P6\n1 1\n65535\n", "65536 shades"},
		"dots that are missing":   {"P6\n2 2\n255\nabc", "ends early"},
	} {
		t.Run(sentence, func(t *testing.T) {
			if _, err := decodePPM(strings.NewReader(c.ppm)); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzPicture(f *testing.F) {
	f.Add([]byte("P6\n1 1\n255\nabc"))
	f.Add(flat(9, 16, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := decodePPM(bytes.NewReader(data))
		if err != nil {
			return
		}
		if len(p.Pix) != p.Rect.Dx()*p.Rect.Dy()*4 {
			t.Errorf("%v has %d bytes", p.Rect, len(p.Pix))
		}
		_ = read(p, fonts{own: new(font)}).String()
	})
}

func FuzzWords(f *testing.F) {
	f.Add("00000000: 0x00000001 0x00000002\r\n")
	f.Fuzz(func(t *testing.T, said string) {
		if b, err := parseWords(said, 4); err == nil && len(b) != 16 {
			t.Errorf("%d bytes of 4 words", len(b))
		}
	})
}

func TestAnEmptyScreenIsTextInTextModesOnly(t *testing.T) {
	if text, err := New(&stand{picture: flat(720, 400, 0)}).Text(t.Context()); err != nil || text != "" {
		t.Errorf("720x400: %q, %v", text, err)
	}
	_, err := New(&stand{picture: flat(1024, 768, 0)}).Text(t.Context())
	if !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "graphical, 1024 by 768") || fault.All(err)[0].Hint == "" {
		t.Errorf("1024x768: %v", err)
	}
}

// TestAConsoleOfDotsIsRead draws a text with a font in a large picture, under an
// image and with a cursor, as a kernel does.
func TestAConsoleOfDotsIsRead(t *testing.T) {
	f := new(font)
	for code := range f { // each code another glyph, none of them with a full line
		f[code] = glyph{3: byte(code) &^ 1, 4: byte(code) << 7, 7: 0x18}
	}
	f[' '], f[0], f[255] = glyph{}, glyph{}, glyph{}
	known := fonts{firmware: []sized{{16, f}}}
	p, err := decodePPM(bytes.NewReader(flat(1000, 600, 0)))
	if err != nil {
		t.Fatal(err)
	}
	write := func(column, row int, text string, cursor bool) {
		for i, r := range []byte(text) {
			for y := range 16 {
				for x := range 8 {
					if f[r][y]>>(7-x)&1 == 1 || cursor && y >= 14 {
						p.Pix[((row*16+y)*1000+(column+i)*8+x)*4] = 0xaa
					}
				}
			}
		}
	}
	write(0, 2, "[    0.000000] Linux", false)
	write(0, 36, "login: ", false)
	write(7, 36, "r", true)
	write(8, 36, " ", true) // there is one cursor only
	for i := range 8 * 16 {
		p.Pix[(i/8*1000+80+i%8)*4] = byte(i)
	}
	g := read(p, known)
	want := "          \ufffd\n\n[    0.000000] Linux\n" + strings.Repeat("\n", 33) + "login: r\ufffd\n"
	if !g.text(p.Rect.Max) || g.String() != want {
		t.Errorf("read %q; want %q", g, want)
	}
}

func TestHowKeysAreWritten(t *testing.T) {
	for written, want := range map[string]string{
		"f2": "f2", "ret": "ret", "Enter": "ret", "a": "a", "A": "shift a", "!": "shift 1", "-": "minus", "ctrl-alt-delete": "ctrl alt delete",
		"CTRL-C": "ctrl c", "win-r": "meta_l r", "alt-sysrq-b": "alt sysrq b", " ": "spc", "\n": "ret", "?": "shift slash", "~": "shift grave_accent",
	} {
		c, err := parseChord(written)
		if err != nil || strings.Join(c, " ") != want {
			t.Errorf("%q is %v, %v; want %s", written, c, err, want)
		}
	}
	for _, written := range []string{"", "ctrl-", "f25", "ä", "ctrl+c", "a-b-c-d-e-f-g-h-i", "\x00"} {
		if c, err := parseChord(written); !fault.Is(err, fault.Invalid) || fault.All(err)[0].Field != "keys" || fault.All(err)[0].Hint == "" {
			t.Errorf("%q is %v, %v", written, c, err)
		}
	}
	for r := ' '; r <= '~'; r++ {
		if _, ok := chordOf(r); !ok {
			t.Errorf("%q cannot be typed", r)
		}
	}
	for text, words := range map[string]string{"": "0 characters", strings.Repeat("x", maxText+1): "4097", "naïve": "'ï', character 3", "a\x1b": `'\x1b', character 2`, "\xff": "character 1"} {
		if _, err := chordsOf(text); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), words) {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	for _, n := range []int{0, maxChords + 1} {
		if _, err := parseChords(make([]string, n)); !fault.Is(err, fault.Invalid) {
			t.Errorf("%d keys: %v", n, err)
		}
	}
}

func TestKeysAreLetGoInTheOtherOrder(t *testing.T) {
	m := &stand{}
	s := New(m)
	if err := s.Press(t.Context(), []string{"ctrl-alt-delete"}, MinPace); err != nil {
		t.Fatal(err)
	}
	if err := s.Type(t.Context(), "aB", MinPace); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.keys(), " "); got != "+ctrl +alt +delete -delete -alt -ctrl +a -a +shift +b -b -shift" {
		t.Errorf("pressed %s", got)
	}
	for _, pace := range []time.Duration{-1, MinPace - 1, MaxPace + 1} {
		if err := s.Type(t.Context(), "a", pace); !fault.Is(err, fault.Invalid) {
			t.Errorf("pace %v: %v", pace, err)
		}
	}
	m.refuse = "input-send-event"
	if err := s.Type(t.Context(), "a", 0); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), "press key 1 of 1") {
		t.Errorf("refused: %v", err)
	}
}

func TestNoKeyStaysDownWhenTimeIsUp(t *testing.T) {
	m := &stand{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := New(m).Type(ctx, "aaaa", MaxPace); !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), "1 of 4") {
		t.Errorf("got %v", err)
	}
	if got := strings.Join(m.keys(), " "); got != "+a -a" {
		t.Errorf("pressed %s", got)
	}
}

func TestWaitEnds(t *testing.T) {
	never := regexp.MustCompile("never")
	if _, _, err := New(&stand{refuse: "screendump"}).Wait(t.Context(), never); !fault.Is(err, fault.Unable) {
		t.Errorf("refused: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	for size, words := range map[[2]int]string{{720, 400}: "it says nothing", {800, 600}: "graphical, 800 by 600"} {
		_, _, err := New(&stand{picture: flat(size[0], size[1], 0)}).Wait(ctx, never)
		if !fault.Is(err, fault.Busy) || !strings.Contains(err.Error(), words) && !strings.Contains(err.Error(), "nothing was read") {
			t.Errorf("%v: %v", size, err)
		}
	}
}

func TestAViewerThatIsNotTaken(t *testing.T) {
	for _, command := range []string{"getfd", "add_client"} {
		m := &stand{refuse: command}
		if _, err := New(m).Connect(t.Context()); !fault.Is(err, fault.Unable) || !strings.Contains(err.Error(), command) {
			t.Errorf("%s: %v", command, err)
		}
	}
	m := &stand{}
	conn, err := New(m).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // the stand-in has closed its end
		t.Errorf("got %v", err)
	}
}
