// Package port is what a keeper and the agent of a guest or machine say to one
// another on the virtio-serial or serial port that carries the standard streams of every
// program inside. It is compiled into the keeper, so it stays small.
//
// # Frames
//
// A frame is a type (1 byte), a channel (4 bytes, big endian), a length (4 bytes,
// big endian), and as many bytes of payload, at most MaxPayload. Channel 0 is the
// main program; the keeper numbers the others, one for each exec, and uses no
// number twice in one run.
//
//	host → agent   Hello, Exec, Stdin, CloseStdin, Resize, Signal, Window, Taken
//	agent → host   Hello, Started, Failed, Stdout, Stderr, Exit, Ready, Window, Over
//
// # Meeting
//
// Where the port is a serial port, the host says Hello until it is answered, each time with
// another number, because what is said before the agent has opened it is lost.
//
// Either side may be younger than what stands in the port. The host opens with
// Hello: Magic, then a version and a number that it chose by chance. An agent
// that waits for Hello throws away everything up to Magic; it answers Hello with
// the same number and its own version, and the host throws away everything up to
// that. A version that is not the agent's gets an answer, and nothing else.
//
// An agent whose host has gone (the port says so, or what came is no frame) closes
// and opens the port and waits for Hello. An agent that gets Hello when it has met
// a host already starts anew with it. Programs always go on, and for the new host:
//
//   - the main program is channel 0. Its windows begin anew, and Started, Failed,
//     Ready and Exit are said again, as far as they had come. What the old host
//     did not take of its output is lost; its input stays open.
//   - the old host's other channels are no more. The input of their programs ends,
//     and their output is thrown away. Numbers may begin anew.
//
// # A channel
//
// The host opens a channel with Exec and may send all else at once: input waits
// for the program, and so do a size and a signal. The agent answers Started or
// Failed; Failed is a channel's last frame. What comes for a channel that is over,
// or never was, is thrown away, because the two directions overtake one another.
// A terminal's input has no end: CloseStdin means nothing there, and ^C is a byte.
// A Signal is for the program itself, not for its group.
//
// # Windows
//
// A slow reader of one channel must not hold up the others. Who receives bytes
// grants them beforehand: InitialWindow bytes of output per channel (standard
// output and error together) and as many of input, and more by Window frames as
// they are consumed: not for every byte, but once Lump bytes are owed. Payloads
// count, headers do not. Who sends more than was
// granted is at fault, and the host ends such a guest. A program without standard
// input has no window for it beyond the first.
//
// # The end of a program
//
// Exit is a channel's last frame from the agent: it comes when the program has
// ended and what was in its outputs then is sent, so only after the host has granted
// as much. Who else holds the outputs is not waited for. A channel of which the host
// wants no more is not closed: the host sends CloseStdin, throws the output away,
// and grants on.
//
// The host answers the Exit, or Failed, of channel 0 by Taken, after which the agent may switch
// the system off: nothing that was sent before is lost then. It waits for that a
// few minutes at most. After the Taken of an Exit it says Over as soon as the private disk
// is whole. The host need not wait until the system has switched itself off then.
package port
