package spec

import (
	"errors"
	"unicode/utf8"
	"unsafe"
)

// ErrJSON says that a spec is not the JSON it should be. The reader says no
// more: what it reads comes from strata itself.
var ErrJSON = errors.New("the specification is malformed")

// maxDepth bounds how deep values are nested.
const maxDepth = 32

// reader reads one JSON document from b, without reflection. After a fault
// every method returns zero values, and bad is set.
type reader struct {
	b     []byte
	at    int
	depth int
	bad   bool
}

func (r *reader) fail() { r.bad, r.at = true, len(r.b) }

func (r *reader) peek() byte {
	for r.at < len(r.b) {
		switch c := r.b[r.at]; c {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return c
		}
	}
	return 0
}

func (r *reader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

func (r *reader) word(w string) bool {
	if r.peek(); len(r.b)-r.at >= len(w) && string(r.b[r.at:r.at+len(w)]) == w {
		r.at += len(w)
		return true
	}
	return false
}

// end reports whether the whole document was read without a fault.
func (r *reader) end() error {
	if r.peek(); r.bad || r.at != len(r.b) {
		return ErrJSON
	}
	return nil
}

// object calls field for each name; field must read the value. null is no field.
func (r *reader) object(field func(name string)) {
	if r.word("null") {
		return
	}
	r.list('{', '}', func() {
		name := r.text()
		if !r.take(':') {
			r.fail()
			return
		}
		field(name)
	})
}

// array calls item for each value; item must read it. null is an empty one.
func (r *reader) array(item func()) {
	if r.word("null") {
		return
	}
	r.list('[', ']', item)
}

func (r *reader) list(open, shut byte, item func()) {
	if r.depth++; r.depth > maxDepth || !r.take(open) {
		r.fail()
	}
	for first := true; !r.bad; first = false {
		if first && r.take(shut) {
			break
		}
		item()
		if r.take(shut) {
			break
		}
		if !r.take(',') {
			r.fail()
		}
	}
	r.depth--
}

func (r *reader) bool() bool {
	if r.word("true") {
		return true
	}
	if !r.word("false") && !r.word("null") {
		r.fail()
	}
	return false
}

// uint reads a whole number that is not negative.
func (r *reader) uint() uint64 {
	r.peek()
	start, n := r.at, uint64(0)
	for ; r.at < len(r.b) && r.b[r.at] >= '0' && r.b[r.at] <= '9'; r.at++ {
		d := uint64(r.b[r.at] - '0')
		if n > (1<<64-1-d)/10 {
			r.fail()
			return 0
		}
		n = n*10 + d
	}
	if r.at == start || (r.b[start] == '0' && r.at > start+1) {
		r.fail()
		return 0
	}
	return n
}

// int reads a whole number.
func (r *reader) int() int64 {
	negative := r.take('-')
	n := r.uint()
	if n > 1<<63-1 {
		r.fail()
		return 0
	}
	if negative {
		return -int64(n)
	}
	return int64(n)
}

func (r *reader) text() string {
	if r.word("null") {
		return ""
	}
	if !r.take('"') {
		r.fail()
		return ""
	}
	// Nearly every text has no escapes, and is then a part of the document, which
	// nobody writes to: copies would be garbage in a process that stays.
	for start := r.at; r.at < len(r.b); r.at++ {
		if c := r.b[r.at]; c == '"' {
			r.at++
			return unsafe.String(unsafe.SliceData(r.b[start:]), r.at-1-start)
		} else if c == '\\' {
			return r.escaped(append([]byte(nil), r.b[start:r.at]...))
		} else if c < ' ' {
			break
		}
	}
	r.fail()
	return ""
}

// escaped reads the rest of a text that begins with out.
func (r *reader) escaped(out []byte) string {
	for r.at < len(r.b) {
		c := r.b[r.at]
		r.at++
		switch {
		case c == '"':
			return string(out)
		case c == '\\':
			out = r.escape(out)
		case c < ' ':
			r.fail()
		default:
			out = append(out, c)
		}
	}
	r.fail()
	return ""
}

func (r *reader) escape(out []byte) []byte {
	if r.at >= len(r.b) {
		r.fail()
		return out
	}
	c := r.b[r.at]
	r.at++
	switch c {
	case '"', '\\', '/':
		return append(out, c)
	case 'b':
		return append(out, '\b')
	case 'f':
		return append(out, '\f')
	case 'n':
		return append(out, '\n')
	case 'r':
		return append(out, '\r')
	case 't':
		return append(out, '\t')
	case 'u':
		u := r.hex()
		if u >= 0xd800 && u < 0xdc00 && r.word(`\u`) {
			if low := r.hex(); low >= 0xdc00 && low < 0xe000 {
				u = (u-0xd800)<<10 + (low - 0xdc00) + 0x10000
			}
		}
		return utf8.AppendRune(out, u)
	}
	r.fail()
	return out
}

func (r *reader) hex() rune {
	if len(r.b)-r.at < 4 {
		r.fail()
		return 0
	}
	var u rune
	for _, c := range r.b[r.at : r.at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			r.fail()
			return 0
		}
		u = u<<4 | rune(c)
	}
	r.at += 4
	return u
}

// bytes reads base64 with padding, as encoding/json writes a []byte.
func (r *reader) bytes() []byte {
	text := r.text()
	if len(text)%4 != 0 {
		r.fail()
	}
	if r.bad || text == "" {
		return nil
	}
	out := make([]byte, 0, len(text)/4*3)
	for i := 0; i < len(text); i += 4 {
		var n, pad uint32
		for j := range 4 {
			v, ok := digit64(text[i+j])
			if text[i+j] == '=' && j >= 2 && i+4 == len(text) {
				v, ok = 0, true
				pad++
			} else if pad > 0 {
				ok = false
			}
			if !ok {
				r.fail()
				return nil
			}
			n = n<<6 | v
		}
		out = append(out, byte(n>>16), byte(n>>8), byte(n))[:len(out)+3-int(pad)]
	}
	return out
}

func digit64(c byte) (uint32, bool) {
	switch {
	case c >= 'A' && c <= 'Z':
		return uint32(c - 'A'), true
	case c >= 'a' && c <= 'z':
		return uint32(c-'a') + 26, true
	case c >= '0' && c <= '9':
		return uint32(c-'0') + 52, true
	case c == '+':
		return 62, true
	case c == '/':
		return 63, true
	}
	return 0, false
}

// skip reads a value of any kind.
func (r *reader) skip() {
	switch c := r.peek(); {
	case c == '{':
		r.object(func(string) { r.skip() })
	case c == '[':
		r.array(r.skip)
	case c == '"' || c == 'n':
		r.text()
	case c == 't' || c == 'f':
		r.bool()
	default:
		r.int()
	}
}
