// Package accel judges what runs the instructions of guests on this host: KVM where
// it really does, else TCG, QEMU's translator.
//
// A device file that opens tells nothing: there are kernels whose KVM makes machines
// and answers every question as a good one does, and in which no stock system comes
// up. So the judgement has two steps:
//
//  1. A loop of a million instructions, in a process that is thrown away (package
//     loop). It takes milliseconds where the processor runs guests.
//  2. The first boot of a guest, whose outcome the driver says to Confirm. Where it
//     fails and the same guest then boots by TCG, TCG is used from there on.
//
// Both are kept in a file, with what they hold for: the kernel's release and build,
// the processor, QEMU. What may be otherwise the next time (no device, no permission,
// another program that has the processor's extension) is not kept. Removing the file
// has everything judged anew; nothing else depends on it, so one that cannot be read
// or written is as good as none.
package accel
