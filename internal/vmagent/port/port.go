package port

import (
	"encoding/binary"
	"errors"
)

// Type says what a frame carries.
type Type byte

// The types of frame.
const (
	Hello      Type = iota + 1 // Magic, Version (1 byte), the host's number (8 bytes)
	Exec                       // JSON of wire.Process: start it as this channel's program
	Started                    // the channel's program runs
	Failed                     // JSON of wire.Failure: it does not
	Stdin                      // bytes for standard input
	CloseStdin                 // standard input ends
	Resize                     // two 16-bit numbers, big endian: rows, columns
	Signal                     // one byte: the signal's number
	Stdout                     // bytes of standard output, or of the terminal
	Stderr                     // bytes of standard error
	Exit                       // wait status as wait4 gives it (4 bytes, big endian), 1 where memory ran out else 0
	Ready                      // channel 0: the template's init is up
	Window                     // 4 bytes, big endian: so many more bytes may be sent on this channel
	Taken                      // channel 0: the host has its Exit, or Failed
	Over                       // channel 0: the disk is whole, and all that was said is said
	last
)

// Bounds of a frame. Unit: bytes.
const (
	HeaderSize    = 9
	MaxPayload    = 64 << 10
	InitialWindow = 256 << 10
	Lump          = InitialWindow / 4 // what is consumed is granted anew once it is as much
)

// Version is that of this protocol.
const Version = 1

// Magic opens a Hello: bytes that no frame of any length starts with by chance.
const Magic = "\xf5strata-streams\x00"

// HelloSize is the size of a Hello's payload. Unit: bytes.
const HelloSize = len(Magic) + 1 + 8

// Faults of what the other side sent.
var (
	ErrType    = errors.New("port: unknown type of frame")
	ErrTooLong = errors.New("port: frame is longer than 65536 bytes")
	ErrPayload = errors.New("port: payload does not fit its type")
)

// Header is what stands before a payload.
type Header struct {
	Type    Type
	Channel uint32
	Length  int
}

// PutHeader writes h into the first HeaderSize bytes of b.
func PutHeader(b []byte, h Header) {
	b[0] = byte(h.Type)
	binary.BigEndian.PutUint32(b[1:], h.Channel)
	binary.BigEndian.PutUint32(b[5:], uint32(h.Length))
}

// ParseHeader reads a header; it refuses unknown types, long payloads and
// lengths that do not fit the type.
func ParseHeader(b []byte) (Header, error) {
	h := Header{Type: Type(b[0]), Channel: binary.BigEndian.Uint32(b[1:])}
	n := binary.BigEndian.Uint32(b[5:])
	if h.Type == 0 || h.Type >= last {
		return Header{}, ErrType
	}
	if n > MaxPayload {
		return Header{}, ErrTooLong
	}
	h.Length = int(n)
	if want := sizeOf(h.Type); want >= 0 && h.Length != want {
		return Header{}, ErrPayload
	}
	return h, nil
}

// sizeOf returns the length of a payload that has only one; else -1.
func sizeOf(t Type) int {
	switch t {
	case Hello:
		return HelloSize
	case Started, CloseStdin, Ready, Taken, Over:
		return 0
	case Signal:
		return 1
	case Resize, Window:
		return 4
	case Exit:
		return 5
	}
	return -1
}

// Append appends a frame to b. The payload must not be longer than MaxPayload.
func Append(b []byte, t Type, channel uint32, payload []byte) []byte {
	var head [HeaderSize]byte
	PutHeader(head[:], Header{t, channel, len(payload)})
	return append(append(b, head[:]...), payload...)
}

// HelloPayload is what a Hello carries.
func HelloPayload(number uint64) []byte {
	b := append(make([]byte, 0, HelloSize), Magic...)
	return binary.BigEndian.AppendUint64(append(b, Version), number)
}

// ParseHello reads the payload of a Hello.
func ParseHello(b []byte) (version byte, number uint64, err error) {
	if len(b) != HelloSize || string(b[:len(Magic)]) != Magic {
		return 0, 0, ErrPayload
	}
	return b[len(Magic)], binary.BigEndian.Uint64(b[len(Magic)+1:]), nil
}
