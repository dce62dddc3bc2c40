package screen

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/strata-project/strata/internal/fault"
)

// Bounds of what is typed at once.
const (
	maxText   = 4096 // characters
	maxChords = 256
	maxHeld   = 8 // keys of a chord
)

// qcodes are the keys that can be pressed, in QEMU's words.
// Source: QEMU, qapi/ui.json, QKeyCode, without those of special keyboards.
var qcodes = strings.Fields(`
	a b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3 4 5 6 7 8 9
	f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12
	esc tab ret spc backspace caps_lock num_lock scroll_lock print sysrq pause menu compose
	shift shift_r ctrl ctrl_r alt alt_r meta_l meta_r
	up down left right home end pgup pgdn insert delete
	minus equal bracket_left bracket_right backslash semicolon apostrophe grave_accent comma dot slash less
	kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 kp_add kp_subtract kp_multiply kp_divide kp_decimal kp_enter
	power sleep wake volumeup volumedown audiomute`)

// names are what people call keys otherwise.
var names = map[string]string{
	"enter": "ret", "return": "ret", "escape": "esc", "space": "spc", "del": "delete", "ins": "insert",
	"pageup": "pgup", "pagedown": "pgdn", "control": "ctrl", "win": "meta_l", "super": "meta_l", "meta": "meta_l",
	"altgr": "alt_r", "bs": "backspace", "capslock": "caps_lock", "numlock": "num_lock", "period": "dot",
}

// plain and shifted are the signs of a US keyboard, without and with shift, and
// keys the one that has them both. Letters are apart.
const (
	plain   = "1234567890-=[]\\;'`,./"
	shifted = "!@#$%^&*()_+{}|:\"~<>?"
)

var signKeys = strings.Fields("1 2 3 4 5 6 7 8 9 0 minus equal bracket_left bracket_right backslash semicolon apostrophe grave_accent comma dot slash")

// chord is keys that are pressed in this order, and let go in the other.
type chord []string

// chordOf returns how a character is typed on a US keyboard.
func chordOf(r rune) (chord, bool) {
	switch {
	case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
		return chord{string(r)}, true
	case r >= 'A' && r <= 'Z':
		return chord{"shift", string(r - 'A' + 'a')}, true
	}
	switch r {
	case ' ':
		return chord{"spc"}, true
	case '\n':
		return chord{"ret"}, true
	case '\t':
		return chord{"tab"}, true
	}
	if r >= utf8.RuneSelf {
		return nil, false
	}
	if i := strings.IndexRune(plain, r); i >= 0 {
		return chord{signKeys[i]}, true
	}
	if i := strings.IndexRune(shifted, r); i >= 0 {
		return chord{"shift", signKeys[i]}, true
	}
	return nil, false
}

// chordsOf returns how a text is typed. Kinds: Invalid.
func chordsOf(text string) ([]chord, error) {
	if n := utf8.RuneCountInString(text); n > maxText || n == 0 {
		return nil, fault.Invalidf("a text of %d characters cannot be typed at once", n).At("text").Help("1 to %d characters can", maxText)
	}
	var all []chord
	at := 0
	for _, r := range text {
		at++
		c, ok := chordOf(r)
		if !ok {
			return nil, fault.Invalidf("%q, character %d, is not on a US keyboard", r, at).At("text").
				Help("letters, digits and signs of ASCII, newline and tab can be typed; other keys are pressed by name: strata key NAME f2")
		}
		all = append(all, c)
	}
	return all, nil
}

// parseChords reads chords such as "ctrl-alt-delete", "f2" or "a". Kinds: Invalid.
func parseChords(written []string) ([]chord, error) {
	if len(written) > maxChords || len(written) == 0 {
		return nil, fault.Invalidf("%d keys cannot be pressed at once", len(written)).At("keys").Help("1 to %d can", maxChords)
	}
	var all []chord
	for _, one := range written {
		c, err := parseChord(one)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func parseChord(written string) (chord, error) {
	if c, ok := chordOf(single(written)); ok {
		return c, nil
	}
	var c chord
	for name := range strings.SplitSeq(written, "-") {
		name = strings.ToLower(name)
		if other, ok := names[name]; ok {
			name = other
		}
		if !slices.Contains(qcodes, name) {
			return nil, fault.Invalidf("%.40q is not a key", name).At("keys").
				Help("keys are %s; hold several with dashes: ctrl-alt-delete", strings.Join(qcodes, " "))
		}
		c = append(c, name)
	}
	if len(c) > maxHeld {
		return nil, fault.Invalidf("%d keys cannot be held together", len(c)).At("keys").Help("at most %d can", maxHeld)
	}
	return c, nil
}

// single returns the one character of a text, 0 where it has several.
func single(text string) rune {
	r, size := utf8.DecodeRuneInString(text)
	if size != len(text) {
		return 0
	}
	return r
}
