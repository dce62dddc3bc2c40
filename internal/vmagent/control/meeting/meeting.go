// Package meeting is how a host and the agent of a guest or machine find one
// another on the control port, however young either is and whatever stands in
// the port from before.
//
// The host sends a preamble: Magic and a number that it chose by chance. The agent
// throws away everything up to that, whatever it was doing, and answers with the
// same preamble. The host throws away everything up to its own number and sends
// its first request then, not before.
//
// Magic never is part of what either sends otherwise: it holds bytes that are in
// no text, in an order that no message's encoding gives.
package meeting

import (
	"bytes"
	"encoding/binary"
)

// Magic opens a preamble.
const Magic = "\xf5\x00strata-agent\x00\xf4"

// Size is that of a preamble. Unit: bytes.
const Size = len(Magic) + 8

// Append appends a preamble with number to b.
func Append(b []byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, Magic...), number)
}

// Find looks for the last whole preamble in b. It returns its number and what
// comes after it.
func Find(b []byte) (number uint64, rest []byte, ok bool) {
	at := bytes.LastIndex(b[:max(0, len(b)-8)], []byte(Magic))
	if at < 0 {
		return 0, b, false
	}
	return binary.BigEndian.Uint64(b[at+len(Magic):]), b[at+Size:], true
}

// Keep returns the end of b that may be the beginning of a preamble.
func Keep(b []byte) []byte {
	if at := bytes.LastIndex(b, []byte(Magic)); at >= 0 {
		return b[at:]
	}
	for n := min(len(b), len(Magic)-1); n > 0; n-- {
		if string(b[len(b)-n:]) == Magic[:n] {
			return b[len(b)-n:]
		}
	}
	return b[len(b):]
}
