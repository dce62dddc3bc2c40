// Package port is what a keeper and the agent of a guest or machine say to one
// another on the virtio-serial port that carries the standard streams of every
// program inside. It is compiled into the keeper, so it stays small.
//
// # Frames
//
// A frame is a type (1 byte), a channel (4 bytes, big endian), a length (4 bytes,
// big endian), and as many bytes of payload, at most MaxPayload. Channel 0 is the
// main program; the keeper numbers the others, one for each exec, and uses no
// number twice in one run.
//
//	host → agent   Hello, Exec, Stdin, CloseStdin, Resize, Signal, Window
//	agent → host   Hello, Started, Failed, Stdout, Stderr, EOF, Exit, Ready, Window
//
// # Meeting
//
// Either side may be younger than what stands in the port. The host opens with
// Hello: Magic, then a version and a number that it chose by chance. An agent
// that waits for Hello throws away everything up to Magic; it answers Hello with
// the same number, and the host throws away everything up to that. An agent that
// gets Hello when it has met a host already starts anew: it answers, and its
// programs go on.
//
// # Windows
//
// A slow reader of one channel must not hold up the others. Who receives bytes
// grants them beforehand: InitialWindow bytes of output per channel (standard
// output and error together) and as many of input, and more by Window frames as
// they are consumed. Who sends more than was granted is at fault, and the host
// ends such a guest.
//
// # The end of a program
//
// Exit is a channel's last frame from the agent: it comes when the program has
// ended and what was in its outputs then is sent. A channel of which the host
// wants no more is not closed: its input is ended, and its output thrown away.
package port
