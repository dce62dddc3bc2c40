package answer

import "encoding/binary"

// Message is a protobuf message under construction. Zero values are left out, as
// proto3 has it. Source: protobuf.dev/programming-guides/encoding.
type Message []byte

// The wire types of protobuf that are used.
const (
	varint  = 0
	fixed64 = 1
	counted = 2
	fixed32 = 5
)

// Int appends a number (int32, int64, enum).
func (m *Message) Int(field int, v int64) {
	if v != 0 {
		*m = binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field<<3|varint)), uint64(v))
	}
}

// Bool appends true.
func (m *Message) Bool(field int, v bool) {
	if v {
		m.Int(field, 1)
	}
}

// Text appends a string, in which what is no UTF-8 is replaced: the other side
// would refuse the whole message.
func (m *Message) Text(field int, v string) {
	if v != "" {
		m.Bytes(field, []byte(valid(v)))
	}
}

// Bytes appends bytes, or a message inside this one; also where there are none.
func (m *Message) Bytes(field int, v []byte) {
	*m = binary.AppendUvarint(binary.AppendUvarint(*m, uint64(field<<3|counted)), uint64(len(v)))
	*m = append(*m, v...)
}

func valid(s string) string {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return string([]rune(s)) // which replaces what is malformed
		}
	}
	return s
}

// Read calls f for each field of b: v is the value of a number, data that of
// anything that has a length. It returns false where b is malformed.
func Read(b []byte, f func(field int, v uint64, data []byte)) bool {
	for len(b) > 0 {
		key, n := binary.Uvarint(b)
		if n <= 0 || key>>3 == 0 || key>>3 > 1<<29-1 {
			return false
		}
		b = b[n:]
		var v uint64
		var data []byte
		switch key & 7 {
		case varint:
			if v, n = binary.Uvarint(b); n <= 0 {
				return false
			}
		case counted:
			size, m := binary.Uvarint(b)
			if m <= 0 || size > uint64(len(b)-m) {
				return false
			}
			n = m + int(size)
			data = b[m:n]
		case fixed64:
			n = 8
		case fixed32:
			n = 4
		default:
			return false
		}
		if n > len(b) {
			return false
		}
		b = b[n:]
		f(int(key>>3), v, data)
	}
	return true
}
