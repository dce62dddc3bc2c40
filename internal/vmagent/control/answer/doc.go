// Package answer is the agent's side of the control port: the part of ttrpc and
// protobuf that it needs, and no more. The generated code and its libraries would
// make the agent three times as big and cost it a tenth of a second of its start
// where the processor is emulated; a test holds this package and the generated
// client together.
//
// # Sessions
//
// A session begins with a host's preamble (package meeting) and ends with the next
// one, or with the port. Whatever is being worked on then is finished, and its
// answer thrown away: a host's answers never reach another host.
//
// # Bounds
//
// A message is at most MaxMessage. A host that sends anything malformed is not
// heard any more until it sends a preamble. At most atOnce requests are worked on
// at a time; further ones wait in the port.
package answer
