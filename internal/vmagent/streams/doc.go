// Package streams is the agent's end of package port: it starts programs in a
// guest or machine and carries their standard streams, terminals, signals and
// exits over one virtio-serial port.
//
// # Shape
//
// One goroutine reads the port, and never writes to it nor waits for a program.
// Each program has one goroutine for its life, one for each output, and one for
// its input; they wait in the runtime's poller, so a program costs no thread.
// Outputs are read only as far as the host has granted, straight into the frame
// that is sent, so nothing is queued here; input is queued up to its window.
//
// # Locks
//
// In this order; none is held while waiting for a program or a pipe:
//
//	Server.mu    which channels there are, and which host is met
//	channel.mu   one channel's windows, input and host
//	link.mu      one frame is written at a time
//
// A channel's telling is held over the writes of its Started … Exit, before the others.
//
// # Hosts
//
// The host is trusted, but may be replaced at any moment: see "Meeting" in package
// port. What is said to a host that has gone is lost. A host that breaks the
// protocol is treated as gone.
//
// # What is hostile
//
// Programs are, as far as they can be to a process of the same system: they may
// close, fill, or keep open their pipes, and start slowly or not at all. Nothing
// they do holds up another program, or Exit once they have ended.
//
// # What it does not do
//
// It reaps nobody, knows no control groups and mounts nothing: its Starter does.
package streams
