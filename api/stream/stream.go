// Package stream frames the bytes of run, exec and attach.
//
// After an HTTP request with `Upgrade: strata-stream` was answered 101, both
// sides send frames: one byte of type, four bytes of length (big endian), and
// as many bytes of payload, at most MaxPayload. Standard output and standard
// error stay apart; the exit status is the last frame.
//
//	client → environment: Stdin, CloseStdin, Resize, Signal
//	environment → client: Stdout, Stderr, Exit or Failure (last)
//
// The package is also part of the keeper, one of which runs per environment:
// it must stay small, so it imports no formatting, no reflection and no network.
package stream

import (
	"encoding/binary"
	"errors"
	"io"
)

// Protocol is the name in the Upgrade header.
const Protocol = "strata-stream"

// Type says what a frame carries.
type Type byte

// The types of frame.
const (
	Stdin      Type = iota + 1 // bytes for standard input
	CloseStdin                 // standard input ends; no payload
	Resize                     // two 16-bit numbers, big endian: rows, columns
	Signal                     // one byte: the signal's number
	Stdout                     // bytes of standard output
	Stderr                     // bytes of standard error
	Exit                       // exit status as ExitPayload packs it
	Failure                    // JSON of api.Error: the program could not be started
	last
)

// MaxPayload bounds a frame. Unit: bytes.
const MaxPayload = 64 << 10

// HeaderSize is the size of what stands before a payload. Unit: bytes.
const HeaderSize = 5

// Errors of a malformed stream.
var (
	ErrTooLong = errors.New("stream: frame is longer than 65536 bytes")
	ErrType    = errors.New("stream: unknown type of frame")
	ErrPayload = errors.New("stream: payload does not fit its type")
)

// PutHeader writes the header of a frame with n bytes of payload into b.
func PutHeader(b []byte, t Type, n int) {
	b[0] = byte(t)
	binary.BigEndian.PutUint32(b[1:HeaderSize], uint32(n))
}

// ParseHeader reads a header; it refuses unknown types and long payloads.
func ParseHeader(b []byte) (Type, int, error) {
	t, n := Type(b[0]), binary.BigEndian.Uint32(b[1:HeaderSize])
	if t == 0 || t >= last {
		return 0, 0, ErrType
	}
	if n > MaxPayload {
		return 0, 0, ErrTooLong
	}
	return t, int(n), nil
}

// Write sends payload as one frame, or several where it is long and t is a
// stream of bytes. It makes one Write call per frame.
func Write(w io.Writer, t Type, payload []byte) error {
	for {
		part := payload
		if len(part) > MaxPayload {
			if t != Stdin && t != Stdout && t != Stderr {
				return ErrTooLong
			}
			part = part[:MaxPayload]
		}
		frame := make([]byte, HeaderSize+len(part))
		PutHeader(frame, t, len(part))
		copy(frame[HeaderSize:], part)
		if _, err := w.Write(frame); err != nil {
			return err
		}
		if payload = payload[len(part):]; len(payload) == 0 {
			return nil
		}
	}
}

// Reader reads frames. Its buffer is reused: a payload is valid until the next call.
type Reader struct {
	r   io.Reader
	buf []byte
}

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. io.EOF means that the stream ended between two
// frames, io.ErrUnexpectedEOF that it ended inside one.
func (r *Reader) Next() (Type, []byte, error) {
	var head [HeaderSize]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return 0, nil, err
	}
	t, n, err := ParseHeader(head[:])
	if err != nil {
		return 0, nil, err
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, max(n, 4096))
	}
	r.buf = r.buf[:n]
	if _, err := io.ReadFull(r.r, r.buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return t, r.buf, nil
}

// Ended is how a program ended.
type Ended struct {
	Status uint8 // 128 plus Signal where a signal ended it
	Signal uint8
	OOM    bool
}

// ExitPayload packs how a program ended: status, signal, and 1 for out of memory.
func ExitPayload(e Ended) []byte {
	oom := byte(0)
	if e.OOM {
		oom = 1
	}
	return []byte{e.Status, e.Signal, oom}
}

// ParseExit unpacks what ExitPayload packed.
func ParseExit(p []byte) (Ended, error) {
	if len(p) != 3 || p[2] > 1 {
		return Ended{}, ErrPayload
	}
	return Ended{Status: p[0], Signal: p[1], OOM: p[2] == 1}, nil
}

// ResizePayload packs the size of a terminal.
func ResizePayload(rows, cols uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, rows), cols)
}

// ParseResize unpacks what ResizePayload packed.
func ParseResize(p []byte) (rows, cols uint16, err error) {
	if len(p) != 4 {
		return 0, 0, ErrPayload
	}
	return binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]), nil
}
