// Package vhost is the device's side of vhost-user: a program beside QEMU serves the
// queues of a virtio device, in memory that it shares with the machine.
//
// # Words
//
//	queue    a split virtqueue: a ring of requests that the driver offers, and one of those that are done
//	request  a chain of buffers: what the driver has written, and room for the answer
//	region   a part of the machine's memory, mapped here
//
// # How it fits
//
// Serve speaks with QEMU over a connection, takes the queues as QEMU starts and stops them, and
// calls a function for each request. Requests of the first queue, which ought to be short, are handled
// in turn, those of the others at the same time, up to a bound. A queue that QEMU stops has no
// request left when QEMU is answered, so that a machine can be held still; a request that is not
// answered in half a minute ends the whole, since QEMU does nothing else meanwhile.
//
// # Whom it trusts
//
// Nobody. Rings and buffers are the machine's to write to at any moment: each word of a ring is
// read once, and checked before it is used; chains, tables and messages have bounds. Who breaks the
// protocol is served no further: Serve returns.
//
// Source: QEMU's docs/interop/vhost-user.rst; Virtual I/O Device (VIRTIO) 1.2, 2.7.
package vhost
